"""The order of a program's steps, so that little is kept in memory."""
from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.codegen.control import Step, root
from graphc.codegen.lower import Buffer, typical


def thrifty(steps: Sequence[Step], writes: Sequence[tuple[Buffer, Buffer]], outside: Collection[Buffer]) -> list[Step]:
    """The steps in their order, but those that could come earlier come as soon as they can where they keep no more bytes than
    their operands, which would have to wait for them: the gradient of a layer's weights right after that of its output, and
    not when the gradients of all layers are there.

    writes   (variable, its new value): a new value still comes after all that read the old one or can fail, so that it may take
             its place.
    outside  buffers that take no temporary memory.
    """
    reads = [{root(b) for b in s.reads} for s in steps]
    made = [{root(b) for b in s.writes} for s in steps]
    needs = _needs(steps, reads, made, writes)
    users: dict[int, list[int]] = {}
    for k, needed in enumerate(needs):
        for n in needed:
            users.setdefault(n, []).append(k)

    def kept(buffers) -> int:
        return sum(typical(b.bytes) for b in buffers if b not in outside)
    keeps = [kept(buffers) for buffers in made]
    is_thrifty = [keeps[k] <= kept(buffers) for k, buffers in enumerate(reads)]
    order: list[Step] = []
    done: set[int] = set()
    for k in range(len(steps)):
        waiting = [k]
        while waiting:
            now = waiting.pop()
            if now not in done:
                done.add(now)
                order.append(steps[now])
                ready = [u for u in users.get(now, ()) if is_thrifty[u] and needs[u] <= done]
                waiting += sorted(ready, key=lambda u: (-keeps[u], -u))  # the last one is next
    return order


def _needs(steps: Sequence[Step], reads: Sequence[set[Buffer]], made: Sequence[set[Buffer]],
           writes: Sequence[tuple[Buffer, Buffer]]) -> list[set[int]]:
    """For each step the numbers of those that must come before it."""
    found: list[set[int]] = []
    readers: dict[Buffer, set[int]] = {}
    writers: dict[Buffer, set[int]] = {}
    for k in range(len(steps)):
        found.append({n for b in reads[k] | made[k] for n in writers.get(b, ())}
                     | {n for b in made[k] for n in readers.get(b, ())})
        for b in reads[k]:
            readers.setdefault(b, set()).add(k)
        for b in made[k]:
            writers.setdefault(b, set()).add(k)
    can_fail = {k for k, s in enumerate(steps) if s.may_fail}
    for variable, value in writes:
        for k in writers.get(root(value), ()):
            found[k] |= (readers.get(variable, set()) | can_fail) - {k}
    return found
