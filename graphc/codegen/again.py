"""What one loop over parts has made and a later one needs: whether it is made there again, instead of kept between the two.

The backward pass of attention takes the matrix of weights that the forward pass has made of queries and keys, which it takes as
well. If it makes them again, nothing that is kept grows with the square of a sequence's length. That costs one product of seven
and the softmax, about 15 % of both passes, more than to write the weights to memory and to read them; so short rows are stored.
"""
from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from graphc.codegen.lower import Buffer, Call
from graphc.config import options
from graphc.ir.dims import Size

LONG_ROWS = 16          # numbers in a row of what is made again, at least, for each one in the rows that it is made from
LARGE_BYTES = 32 << 20  # of it: less is nothing that anybody misses


def makers(calls: Sequence[Call], wanted: Collection[Buffer]) -> list[Call]:
    """Those of the calls, which are in order, that make the wanted buffers."""
    found: list[Call] = []
    needed = set(wanted)
    for call in reversed(calls):
        if call.writes & needed:
            found.insert(0, call)
            needed |= call.reads
    return found


def is_made_again(matrices: Collection[Buffer], length: Size, terms: Sequence[Size]) -> bool:
    """Whether matrices are made again, with rows of this length by products that sum so many terms."""
    why = _reason_to_store(matrices, length, terms)
    if "memory" in options.explain:
        for b in sorted(matrices, key=lambda b: b.name):
            what = "is computed again in a later loop instead of stored" if why is None else "is stored for a later loop"
            print(f"graphc: memory: {b.name} {what}: {b.bytes} bytes, rows of {length} from {' and '.join(map(str, terms))}"
                  + ("" if why is None else f"; {why}"), file=sys.stderr)
    return why is None


def _reason_to_store(matrices: Collection[Buffer], length: Size, terms: Sequence[Size]) -> str | None:
    if not all(isinstance(n, int) for n in terms):
        return "the products may sum any number of terms"
    if not isinstance(length, int):
        return None
    if length < LONG_ROWS * sum(terms):  # type: ignore[arg-type]
        return f"rows of {LONG_ROWS * sum(terms)} and more are computed again"  # type: ignore[arg-type]
    if all(isinstance(b.bytes, int) and b.bytes < LARGE_BYTES for b in matrices):
        return f"{LARGE_BYTES} bytes and more are computed again"
    return None
