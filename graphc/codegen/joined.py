"""Products of which a loop takes parts of each row together, such as the gates of a recurrent layer: one kernel for both.

A row of the product is cut into equal parts, and the loop computes something of the first elements of all parts, of the second
ones, and so on. A tile of the joined kernel holds the same columns of each part. So what the loop does follows while the sums are
in registers, and they go to memory only if others need them.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.contractions import ROW_VECTORS, choose_tile
from graphc.codegen.control import Step
from graphc.codegen.kernel import Access, Compute, ContractKernel, Coordinate, Int, Literal, Load, LoopKernel, Statement, Store
from graphc.codegen.lower import Buffer, Call, Parameters, Target
from graphc.ir.dims import Size

MOST_GROUPS = 8     # parts of a row: a tile needs registers for sums of each
_WORD = re.compile(r"[A-Za-z_]\w*")


def joined(steps: Sequence[Step], kept: Collection[Buffer], target: Target, few: tuple[Size, int] | None = None) -> list[Step]:
    """The steps with each such product and loop as one call. kept: buffers that others need. few: see `ContractLowering`."""
    found = list(steps)
    for loop in [s for s in steps if isinstance(s, Call) and isinstance(s.kernel, LoopKernel)]:
        for product in [s for s in found if isinstance(s, Call) and isinstance(s.kernel, ContractKernel)]:
            sums, = product.writes if len(product.writes) == 1 else (None,)
            if sums not in loop.reads or sum(sums in s.writes for s in found) > 1:
                continue
            stays = sums in kept or any(sums in s.reads for s in found if s is not loop)
            place = _place(found, product, loop)
            match = _Match.of(product, loop, sums) if place is not None else None
            made = None if match is None else _Join(match, stays, target, few).call()
            if made is not None:
                found[place] = made
                found.remove(loop if found[place] is not loop and loop in found else product)
                break
    return found
