"""Lowering of loop regions: which axes are looped over, in which order, what is vectorised, what is split into chunks."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.codegen.kernel import Access, Accumulator, Check, Int, Load, LoopKernel, Phase, Statement, Store
from graphc.codegen.lower import Buffer, Call, Parameters, typical
from graphc.codegen.statements import Strides, Writer, accumulator_of, item_bytes
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.ir.types import BY_SHORT
from graphc.memory import ALIGNMENT
from graphc.passes.fuse import is_literal
from graphc.passes.regions import Region, contiguous
from graphc.passes.verdict import node_cost

BLOCK = 4096            # elements that are summed before the sum is added to the total: accuracy, and chunks of work
SMALL = 4 * BLOCK       # a whole-array reduction of at most so many elements is one kernel
ACROSS = 16             # vector instructions that fill a vector with elements that do not lie together
TURNED = 6              # where blocks of them are turned in registers
BLOCK_EDGE = 6          # rows or columns of which a block must have more
FEW = 16                # elements that do not fill vectors
DEAR = 10               # vector instructions that take longer than a store and a load
KEPT_ROW = 1 << 15      # elements of a row that stays in the caches between passes
LONG_ROW = 256          # elements of which few are at the ends
MANY_COLUMNS = 64       # for each vector that is walked down with others
WIDE_STATEMENTS = 80    # of a body that is written several times
WIDE_SUMS = 3           # of a pass
MANY_STATEMENTS = 80    # of which not two fit side by side
SHORT_ROW = 128         # elements of which so many rows as a vector has lanes stay in the first cache
ROWS = 16               # the most lanes
FEW_ROWS = 4            # that would leave most lanes empty
ABREAST = 4             # vectors that are computed at once, where each is a long chain of instructions
PLAIN = {Kind.ELEMENTWISE, Kind.REDUCE, Kind.INDEX}
UNROLLED = 4            # a reduced axis of so few places, as that of a pooling window, is written out
STREAM_BYTES = 16 << 20  # results larger than this bypass the caches


class LoopLowering:
    """Turns one loop region into one or two kernel calls."""

    def __init__(self, name: str, region: Region, buffers: Mapping[Node, Buffer], line=None):
        self.name, self.region, self.buffers, self.line = name, region, buffers, line
        self.order = self.axis_order()

    # axes --------------------------------------------------------------------------------------------------------------

    def axis_order(self) -> tuple[list[list[int]], list[list[int]]]:
        """(parallel, reduced) axes, outermost first, each a list of domain axes that are walked as one."""
        strides = addressed(self.region)

        def merged(axes: Sequence[int]) -> list[list[int]]:
            groups: list[list[int]] = []
            for axis in axes:
                if groups and all(s[groups[-1][-1]] == s[axis] * self.region.sizes[axis] for s in strides):
                    groups[-1].append(axis)
                else:
                    groups.append([axis])
            return groups
        return merged(self.region.parallel), merged(self.reduced_axes())

    def reduced_axes(self) -> list[int]:
        """The reduced axes as they lie in the largest load: the last one moves least in memory."""
        axes = sorted(self.region.reduced)
        found = [spread(self.region, s.strides, self.region.placement[n]) for n, s in self.region.loads.items()
                 if n in self.region.placement]
        main = max(found, key=lambda s: sum(s[a] != 0 for a in axes), default=None)
        if main is None or any(main[a] == 0 for a in axes):
            return axes
        return sorted(axes, key=lambda a: -abs(typical(main[a])))

    def along_reduced(self) -> bool:
        """Whether lanes run along the last reduced axis: where more loads are contiguous, first of those that vary along both
        that axis and the last parallel one, for they take the most time.
        """
        region = self.region
        if not region.reduced:
            return False
        if not region.parallel:
            return True
        parallel, reduced = region.parallel[-1], self.reduced_axes()[-1]
        loads = [spread(region, s.strides, region.placement[n]) for n, s in region.loads.items() if n in region.placement]
        for considered in ([s for s in loads if s[parallel] != 0 and s[reduced] != 0], loads):
            votes = sum((s[reduced] == 1) - (s[parallel] == 1) for s in considered)
            if votes:
                return votes > 0
        few = region.sizes[reduced]
        if isinstance(few, int) and few < FEW and few < typical(region.sizes[parallel]):
            return False
        return reduced > parallel

    # kernels -----------------------------------------------------------------------------------------------------------

    def calls(self) -> list[Call]:
        """The kernel calls, in order."""
        elements = dims.product(self.region.sizes)
        if self.region.reduced and not self.region.parallel and not _surely_small(elements) \
                and not any(n.op.kind is Kind.REDUCE and n.op.rule.arg for n in self.region.nodes):
            return self.chunked()
        return [self.whole()]

    def strides(self, parameters: Parameters, parallel, reduced) -> Strides:
        """Maps strides over the domain to strides over named axes."""
        names: list[tuple[str, list[int]]] = [(f"p{k}", g) for k, g in enumerate(parallel)]
        names += [(f"r{k}", g) for k, g in enumerate(reduced)]
        return Strides(self.region, parameters, names)

    def sizes(self, parameters: Parameters, groups, letter: str):
        keep = range(1, UNROLLED + 1) if letter == "r" else (1,)
        return tuple((f"{letter}{k}", parameters.size(dims.product(self.region.sizes[a] for a in g), keep=keep))
                     for k, g in enumerate(groups))

    def whole(self) -> Call:
        """One kernel for the whole region."""
        parallel, reduced = self.order
        parameters = Parameters()
        along = self.along_reduced()
        sizes_p, sizes_r = self.sizes(parameters, parallel, "p"), self.sizes(parameters, reduced, "r")
        if self.region.reduced and not sizes_r:
            raise AssertionError("a reduction without axes")
        if not along and not sizes_p:  # numbers alone: lanes need an axis, of size 1
            sizes_p = (("p0", 1),)
        vector = (sizes_r if along else sizes_p)[-1][0]
        writer = Writer(self.region, self.buffers, parameters, self.strides(parameters, parallel, reduced))
        together = along and self.are_together()
        scratch = self.keep_values(writer, along, together)
        before = writer.section(self.row_targets(0))
        phases = tuple(self.phase(writer, k, vector) for k in range(self.phase_count()))
        if along and parallel:
            phases = self.fetching_ahead(phases, sizes_p[-1][0], vector)
        elements = dims.product(self.region.sizes)
        stream = ""
        if self.streams_rows(along, phases) or \
                not self.region.reduced and len(sizes_p) == 1 and parallel and self.stores_are_aligned():
            stream = str(parameters.size(self.stream_flag(elements), keep=()))
        kernel = LoopKernel(self.name, parameters.buffer_names, parameters.size_names, sizes_p, sizes_r, vector,
                            tuple(before), phases, item_bytes(before, phases),
                            blocked=any(p.accumulators for p in phases) and not self.short_rows(), stream=stream,
                            wide=self.width(before, phases) if sizes_r and not along else self.abreast(before, phases, vector),
                            scratch=scratch, together=together, may_fail=bool(parameters.failures))
        kernel = replace(kernel, turned=self.turned(kernel))
        across = TURNED if kernel.turned else ACROSS
        work = self.row_cost() * dims.product(self.region.sizes[a] for a in self.region.parallel) if together else 0
        return parameters.call(kernel, serial=not parallel, operations=elements * self.cost(across, together) + work,
                               location=self.line)

    def turned(self, kernel: LoopKernel) -> str:
        """The axis along which most of what lanes read across lies together, if blocks of it are worth turning."""
        if kernel.phases or kernel.wide > 1 or len(kernel.parallel) < 2:
            return ""
        *outer, (_, length) = kernel.parallel
        votes = {a: sum(replace(kernel, turned=a).is_turned(s) for s in kernel.before) for a, n in outer
                 if isinstance(n, str) or n >= BLOCK_EDGE}
        best = max(votes, key=lambda a: votes[a], default="")
        return best if votes.get(best) and (isinstance(length, str) or length >= BLOCK_EDGE) else ""

    def are_together(self) -> bool:
        """Whether rows are reduced as many at a time as there are lanes: where they are short and something dear, such as a
        logarithm, follows for each, which would be computed in one lane.
        """
        region, parallel = self.region, self.order[0]
        rows = dims.product(region.sizes[a] for a in parallel[-1]) if parallel else 1
        return _surely_small(dims.product(region.sizes[a] for a in region.reduced), SHORT_ROW) and self.row_cost() >= DEAR \
            and not _surely_small(rows, FEW_ROWS - 1)

    def row_cost(self) -> int:
        """About how many vector instructions what is computed once for each row costs."""
        return sum(n.op.rule.cost for n in self.region.nodes if n.op.kind is Kind.ELEMENTWISE and self.region.is_row(n))

    def keep_values(self, writer: Writer, along: bool, together: bool) -> tuple[tuple[str, Int], ...]:
        """Let dear values that are needed again in the last pass over the reduced axes wait for it: a row's powers for the end
        of its softmax. Where lanes run along the row they wait in scratch memory, of which this gives (name, bytes of a
        thread); else in the memory of outputs that are stored in that pass. Only where a row surely stays in the caches.
        """
        region, last = self.region, self.phase_count() - 1
        row = dims.product(region.sizes[a] for a in region.reduced)
        if last < 1 or not _surely_small(row, KEPT_ROW):
            return ()
        needed = self.first_needed()
        kept = [n for n in region.nodes if n.op.kind is Kind.ELEMENTWISE and n.op.rule.cost >= DEAR and not region.is_row(n)
                and needed[n] < last and n not in region.outputs and n.type.dtype.arithmetic is n.type.dtype]
        if not along:
            writer.keep = {n: writer.output_access(o) for n, o in self.kept_in_outputs(kept, last).items()}
            return ()
        _, groups = self.order
        sizes = [dims.product(region.sizes[a] for a in g) for g in groups]
        strides = tuple((f"r{k}", writer.parameters.size(s)) for k, s in enumerate(contiguous(sizes)))
        if together:
            strides = (("slot", writer.parameters.size(row)), *strides)
        found = []
        for node in kept:
            each = dims.floordiv(row * (ROWS if together else 1) * node.type.dtype.size + ALIGNMENT - 1, ALIGNMENT) * ALIGNMENT
            access = writer.scratch(Buffer(f"{self.name}_row", each, per_thread=True), node.type.dtype.short, strides)
            writer.keep[node] = access
            found.append((access.buffer, writer.parameters.size(each)))
        return tuple(found)

    def kept_in_outputs(self, kept: Sequence[Node], last: int) -> dict[Node, Node]:
        """Values that wait -> outputs in whose memory they can."""
        region, found = self.region, {}
        free = [o for o in region.outputs if not region.is_row(o) and region.phase[o] == last]
        for node in kept:
            place = next((o for o in free if o.type == node.type and region.placement[o] == region.placement[node]
                          and self.leads_to(node, o)), None)
            if place is not None:
                found[node] = place
                free.remove(place)
        return found

    def first_needed(self) -> dict[Node, int]:
        """The first pass over the reduced axes that needs a node's value, as far as computed nodes tell."""
        region = self.region
        found = {n: region.phase[n] if n in region.outputs else self.phase_count() for n in region.nodes}
        for user in reversed(region.nodes):
            when = region.phase[user] - 1 if region.reduces(user) else found[user]
            for source in user.inputs:
                if source in found:
                    found[source] = min(found[source], when)
        return found

    def leads_to(self, node: Node, output: Node) -> bool:
        """Whether an output is computed from a value with no reduction in between: it is stored after that was loaded."""
        reached = {node}
        for user in self.region.nodes:
            if not self.region.reduces(user) and not reached.isdisjoint(user.inputs):
                reached.add(user)
        return output in reached

    def width(self, before: Sequence[Statement], phases: Sequence[Phase]) -> int:
        """How many vectors side by side a walk down the columns takes in: several lines of memory at each step, as far as there
        are many columns and the vectors fit into registers.
        """
        columns = dims.product(self.region.sizes[a] for a in self.order[0][-1]) if self.order[0] else 1
        statements = len(before) + sum(len(p.body) + len(p.after) for p in phases)
        sums = max((len(p.accumulators) for p in phases), default=0)
        if not isinstance(columns, int) or statements > WIDE_STATEMENTS or sums > WIDE_SUMS:
            return 1
        return next((w for w in (4, 2) if columns >= w * MANY_COLUMNS), 1)

    def abreast(self, before: Sequence[Statement], phases: Sequence[Phase], vector: str) -> int:
        """How many vectors that follow each other are computed at once: several of what is dear, whose long chains of
        instructions then fill each other's pauses, where there may be many of them.
        """
        region, (parallel, reduced) = self.region, self.order
        group = reduced[-1] if vector.startswith("r") else parallel[-1] if parallel else []
        few = _surely_small(dims.product(region.sizes)) or \
            _surely_small(dims.product(region.sizes[a] for a in group), MANY_COLUMNS)
        dear = any(n.op.kind is Kind.ELEMENTWISE and n.op.rule.cost >= DEAR for n in region.nodes)
        body = [s for p in phases for s in p.body] if phases else list(before)
        plain = all(_is_plain(s) for s in body) and all(n.op.kind in PLAIN for n in region.nodes) and \
            not any(a.arg for p in phases for a in p.accumulators)
        return ABREAST if dear and plain and not few and len(body) <= MANY_STATEMENTS else 1

    def cost(self, each: int = ACROSS, together: bool = False) -> int:
        """About how many vector instructions a point of the domain costs; what lanes read across costs `each`. together:
        without what is computed once for each row.
        """
        region = self.region
        last = self.reduced_axes()[-1] if self.along_reduced() else region.parallel[-1] if region.parallel else None
        across = sum(last is not None and spread(region, s.strides, region.placement[n])[last] not in (0, 1)
                     for n, s in region.loads.items() if n in region.placement)
        nodes = [n for n in region.nodes if not (together and region.is_row(n) and not region.reduces(n))]
        return (sum(n.op.rule.cost if n.op.kind is Kind.ELEMENTWISE else 1 for n in nodes) or 1) + each * across

    def stream_flag(self, elements: Size) -> Size:
        """A size that is 0 as long as the results are small."""
        width = max((o.type.dtype.size for o in self.region.outputs), default=4)
        return dims.floordiv(elements * width, STREAM_BYTES)

    def stores_are_aligned(self) -> bool:
        """Whether every store of a vector is to a multiple of its size, as stores that bypass the caches want it: not where an
        output is a part of something, at an odd place.
        """
        places = (self.region.stored(o)[1] * o.type.dtype.size for o in self.region.outputs if not self.region.is_row(o)
                  or not self.region.reduced)
        return all(dims.floordiv(place, ALIGNMENT) * ALIGNMENT == place for place in places)

    def streams_rows(self, along: bool, phases: Sequence[Phase]) -> bool:
        """Whether the last pass over rows may store past the caches: it reduces nothing, and its outputs all lie alike, so that
        it can begin with what a line of memory lacks.
        """
        row = dims.product(self.region.sizes[a] for a in self.order[1][-1]) if along else 0
        if not phases or phases[-1].accumulators or not isinstance(row, int) or row < LONG_ROW or any(
                s.index or s.access.stride(f"r{len(self.order[1]) - 1}") != 1
                for s in phases[-1].body if isinstance(s, Store)):
            return False
        stores = {(s.access.dtype, s.access.strides, s.access.offset) for s in phases[-1].body if isinstance(s, Store)}
        return len(stores) == 1 and self.stores_are_aligned()

    def fetching_ahead(self, phases: tuple[Phase, ...], axis: str, vector: str) -> tuple[Phase, ...]:
        """Phases that fetch the next row into the caches in the dearest pass that reads this one again, which has time for it:
        a processor does not look far enough ahead to compute on one row while it waits for the next.
        """
        if _surely_small(dims.product(self.region.sizes[a] for a in self.region.reduced), LONG_ROW - 1):
            return phases
        needed = self.first_needed()
        cost = [sum(node_cost(n) for n in self.region.nodes if needed[n] == k) for k in range(len(phases))]
        seen: set[Access] = set()
        found = list(phases)
        for k in sorted(range(1, len(phases)), key=lambda k: -cost[k]):
            body = [replace(s, ahead=axis) if isinstance(s, Load) and not s.index and not s.where and s.access not in seen
                    and s.access.stride(vector) == 1 and s.access.stride(axis) != 0 else s for s in phases[k].body]
            seen |= {s.access for s in body if isinstance(s, Load)}
            found[k] = replace(phases[k], body=tuple(body))
        return tuple(found)

    def short_rows(self) -> bool:
        return _surely_small(dims.product(self.region.sizes[a] for a in self.region.reduced), BLOCK)

    def chunked(self) -> list[Call]:
        """A whole-array reduction: a kernel that reduces fixed chunks, and one that joins their results."""
        region, (_, reduced) = self.region, self.order
        first, partials = Parameters(), {}
        sizes_r = self.sizes(first, reduced, "r")
        outer = dims.product(region.sizes[a] for a in reduced[0])
        inner = dims.product(region.sizes[a] for g in reduced[1:] for a in g)
        chunk = max(1, SMALL // inner) if isinstance(inner, int) else 1
        items = dims.floordiv(outer + chunk - 1, chunk)
        writer = Writer(region, self.buffers, first, self.strides(first, [], reduced))
        before = writer.section(self.row_targets(0, stores=False))
        phase = self.phase(writer, 0, "", stores=False)
        stores = []
        for accumulator in phase.accumulators:
            buffer = Buffer(f"partial_{accumulator.name}", items * _width(accumulator.dtype))
            partials[accumulator.name] = buffer
            stores.append(writer.store_at(accumulator.name, buffer, accumulator.dtype, (("item", 1),)))
        phase = Phase(phase.body, phase.accumulators, tuple(stores))
        stream = ""
        if len(sizes_r) == 1 and any(not region.is_row(o) for o in region.outputs) and self.stores_are_aligned():
            stream = str(first.size(self.stream_flag(outer), keep=()))
        kernel = LoopKernel(self.name + "_chunks", first.buffer_names, first.size_names, (), sizes_r, sizes_r[-1][0],
                            tuple(before), (phase,), item_bytes(before, (phase,)), chunk=chunk, blocked=True, stream=stream,
                            wide=self.abreast(before, (phase,), sizes_r[-1][0]),
                            may_fail=bool(first.failures))
        elements = dims.product(region.sizes)
        call = first.call(kernel, operations=elements * len(region.nodes), location=self.line)
        return [call, self.joined(phase.accumulators, partials, items, writer.names)]

    def joined(self, accumulators: Sequence[Accumulator], partials: Mapping[str, Buffer], items: Size,
               names: Mapping[Node, str]) -> Call:
        """The kernel that combines the chunks' results and computes what follows from them."""
        parameters = Parameters()
        size = parameters.size(items, keep=())
        writer = Writer(self.region, self.buffers, parameters, self.strides(parameters, [], []))
        writer.names.update(names)
        before = writer.section(self.row_targets(0))
        body: list[Statement] = []
        again = []
        for accumulator in accumulators:
            name = f"{accumulator.name}p"
            body.append(writer.load_at(name, partials[accumulator.name], accumulator.dtype, (("r0", 1),)))
            again.append(Accumulator(accumulator.name, accumulator.dtype, name, accumulator.combine, accumulator.horizontal,
                                     accumulator.init))
        after = writer.section(self.row_targets(1), known_reductions=True)
        phases = (Phase(tuple(body), tuple(again), tuple(after)),)
        kernel = LoopKernel(self.name + "_join", parameters.buffer_names, parameters.size_names, (), (("r0", size),), "r0",
                            tuple(before), phases, item_bytes(before, phases), blocked=True, may_fail=bool(parameters.failures))
        return parameters.call(kernel, serial=True, operations=items, location=self.line)

    # sections ----------------------------------------------------------------------------------------------------------

    def phase_count(self) -> int:
        return max((self.region.phase[n] for n in self.region.nodes if self.region.reduces(n)), default=0) + \
            (1 if any(not self.region.is_row(n) and n in self.region.outputs and self.region.phase[n] == self.last_reduction()
                      for n in self.region.nodes) and self.region.reduced else 0)

    def last_reduction(self) -> int:
        return max((self.region.phase[n] for n in self.region.nodes if self.region.reduces(n)), default=0)

    def row_targets(self, phase: int, stores: bool = True) -> list[tuple[Node, bool]]:
        """(row node known after `phase` passes, whether to store it)."""
        region = self.region
        loads = [(n, False) for n, s in region.loads.items()
                 if phase == 0 and n in region.placement and n not in region.nodes and region.is_row(n)
                 and not is_literal(s.node)]
        return loads + [(n, stores and n in region.outputs) for n in region.nodes
                if region.is_row(n) and region.phase[n] == phase and n.op.kind is not Kind.INDEX
                or region.is_row(n) and region.phase[n] == phase and n in region.outputs]

    def phase(self, writer: Writer, number: int, vector: str, stores: bool = True) -> Phase:
        region = self.region
        reductions = [n for n in region.nodes if region.reduces(n) and region.phase[n] == number + 1]
        targets = [(n.inputs[0], False) for n in reductions]
        targets += [(n, True) for n in region.nodes
                    if n in region.outputs and not region.is_row(n) and region.phase[n] == number]
        rows = set(writer.known)
        body = writer.section(targets)
        accumulators = tuple(accumulator_of(n, writer.names, writer.value(n.inputs[0])) for n in reductions)
        writer.known = rows  # what a pass over the reduced axes computes, the next one computes again
        after = writer.section(self.row_targets(number + 1, stores), known_reductions=True) if reductions and stores else []
        return Phase(tuple(body), accumulators, tuple(after))


def addressed(region: Region) -> list[tuple[Size, ...]]:
    """The strides over the domain of everything that is addressed: what axes can be merged depends on them."""
    found = [spread(region, s.strides, region.placement[n]) for n, s in region.loads.items() if n in region.placement]
    found += [spread(region, b.strides, region.placement[n]) for n, s in region.loads.items() for b in s.bounds]
    found += [spread(region, region.stored(n)[0], region.placement[n]) for n in region.outputs]
    for node in region.nodes:
        if node.op.kind is Kind.RANDOM or _fails(node):
            found.append(spread(region, contiguous(node.type.shape), region.placement[node]))
        if node.op.kind is Kind.INDEX:
            found.append(spread(region, node.op.rule.value(node.type, node.attrs)[1], region.placement[node]))
        if node.op.kind is Kind.GATHER:
            found.append(gather_strides(region, node)[0])
            found.append(spread(region, contiguous(node.inputs[1].type.shape), region.placement[node.inputs[1]]))
        if node.op.kind is Kind.REDUCE and node.op.rule.arg:
            found.append(spread(region, (1,) * len(region.sizes), tuple(range(len(region.sizes)))))
    return found


def spread(region: Region, strides: Sequence[Size], placement) -> tuple[Size, ...]:
    """Strides over a value's own axes as strides over the domain's axes."""
    found: list[Size] = [0] * len(region.sizes)
    for stride, axis in zip(strides, placement, strict=True):
        if axis is not None:
            found[axis] = stride
    return tuple(found)


def gather_strides(region: Region, node: Node) -> tuple[tuple[Size, ...], Size]:
    """(strides of the gathered tensor over the domain, stride along the gathered axis)."""
    source = region.loads[node.inputs[0]]
    axis, rank = node.op.rule.axis(node.attrs), node.inputs[1].type.rank
    placement = region.placement[node]
    rest = (*placement[:axis], *placement[axis + rank:])
    strides = (*source.strides[:axis], *source.strides[axis + 1:])
    return spread(region, strides, rest), source.strides[axis]


def _fails(node: Node) -> bool:
    return node.op.kind is Kind.ELEMENTWISE and bool(node.op.rule.fails)


def _is_plain(statement: Statement) -> bool:
    """Whether a statement computes with vectors of any length: no lane of them is picked, and no half is rounded to."""
    if isinstance(statement, Check) or isinstance(statement, Load | Store) and statement.index:
        return False
    dtype = statement.access.dtype if isinstance(statement, Store) else statement.dtype
    return dtype in ("f32", "f64", "bool", "i64")


def _surely_small(elements: Size, limit: int = SMALL) -> bool:
    return isinstance(elements, int) and elements <= limit


def _width(dtype: str) -> int:
    return BY_SHORT[dtype].size


