"""A layered layout of boxes and edges, top to bottom, after Sugiyama: rows, order within rows, positions, routes.

Everything is in pixels. Boxes keep their sizes and never overlap; edges bend around boxes, because an edge that passes
through a row has a place of its own there.
"""
from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

GAP = 18            # between neighbours in a row
LANE = 5            # half the room that an edge needs to pass through a row
LABEL_HEIGHT = 17   # below a row, for labels; edges are vertical there
SWEEPS = 24


@dataclass(eq=False)
class Box:
    """A rectangle. `ins` and `outs` are the ports' x offsets from the centre; `labels` the room that each outs port
    needs right of it below the box. Results: x (of the centre), y (of the top), row.
    """

    width: float
    height: float
    ins: Sequence[float] = (0.0,)
    outs: Sequence[float] = (0.0,)
    labels: Sequence[float] = (0.0,)
    top: bool = False       # belongs into the first row
    bottom: bool = False    # belongs into the last one
    x: float = 0.0
    y: float = 0.0
    row: int = 0
    lane: bool = False      # the place of a passing edge

    @property
    def left(self) -> float:
        return self.width / 2

    @property
    def right(self) -> float:
        return max([self.width / 2, *(o + r for o, r in zip(self.outs, self.labels, strict=False))])


@dataclass(eq=False)
class Link:
    """An edge from port `out` of `source` to port `into` of `target`. `points` is the result: the route's corners."""

    source: Box
    target: Box
    out: int = 0
    into: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)
    chain: list[Box] = field(default_factory=list)


@dataclass(eq=False)
class _Step:
    """A part of a link between two neighbouring rows."""

    upper: Box
    lower: Box
    out: float
    into: float
    weight: float


def layout(boxes: Sequence[Box], links: Sequence[Link]) -> tuple[float, float]:
    """Place the boxes, which come in an order with sources first, and route the links. Returns (width, height)."""
    if not boxes:
        return 0.0, 0.0
    _assign_rows(boxes, links)
    rows: list[list[Box]] = [[] for _ in range(max(b.row for b in boxes) + 1)]
    for box in boxes:
        rows[box.row].append(box)
    steps = _steps(rows, links)
    above: dict[Box, list[_Step]] = {b: [] for row in rows for b in row}
    below: dict[Box, list[_Step]] = {b: [] for row in rows for b in row}
    for step in steps:
        above[step.lower].append(step)
        below[step.upper].append(step)
    _order(rows, above, below)
    _place(rows, above, below)
    height = _heights(rows, above, below)
    _route(rows, links)
    left = min(b.x - b.left for row in rows for b in row)
    for row in rows:
        for box in row:
            box.x -= left
    for link in links:
        link.points = [(x - left, y) for x, y in link.points]
    return max(b.x + b.right for row in rows for b in row), height


# rows ---------------------------------------------------------------------------------------------


def _assign_rows(boxes: Sequence[Box], links: Sequence[Link]) -> None:
    """The longest way from a source; then boxes move within their slack to where their links are shorter."""
    sources: dict[Box, list[Box]] = {b: [] for b in boxes}
    targets: dict[Box, list[Box]] = {b: [] for b in boxes}
    for link in links:
        sources[link.target].append(link.source)
        targets[link.source].append(link.target)
    start = 1 if any(b.top for b in boxes) and not all(b.top for b in boxes) else 0
    for box in boxes:
        box.row = 0 if box.top else max([start, *(s.row + 1 for s in sources[box])])
    last = max(b.row for b in boxes)
    ends = [b for b in boxes if b.bottom]
    if ends and any(b.row == last and not b.bottom for b in boxes):
        last += 1
    for box in ends:
        box.row = last
    _sink(boxes, sources, targets)


def _sink(boxes: Sequence[Box], sources, targets) -> None:
    """Move boxes down, each with what feeds nothing else, as far as that makes links shorter in sum."""
    place = {b: k for k, b in enumerate(boxes)}
    for box in [*reversed(boxes), *reversed(boxes)]:
        slack = min((t.row for t in targets[box]), default=0) - 1 - box.row
        if slack <= 0 or box.top or box.bottom:
            continue
        moved = {box}
        stack = [*sources[box]]
        entering = 0
        for source in sorted(set(stack), key=place.__getitem__, reverse=True):
            stack = [source]
            while stack:
                found = stack.pop()
                if found not in moved and not found.top and moved.issuperset(targets[found]):
                    moved.add(found)
                    stack += sources[found]
        for found in moved:
            entering += sum(s not in moved for s in sources[found])
        if len(targets[box]) > entering:
            for found in moved:
                found.row += slack


def _steps(rows: list[list[Box]], links: Sequence[Link]) -> list[_Step]:
    """Links cut at each row; those that leave one port together share their lanes as long as they go the same way."""
    steps = []
    shared: dict[tuple[Box, int, int], Box] = {}
    seen = set()
    for link in links:
        chain = [link.source]
        for row in range(link.source.row + 1, link.target.row):
            key = (link.source, link.out, row)
            if key not in shared:
                shared[key] = Box(2 * LANE, 0, row=row, lane=True)
                rows[row].append(shared[key])
            chain.append(shared[key])
        chain.append(link.target)
        link.chain = chain
        for upper, lower in zip(chain, chain[1:], strict=False):
            out = 0.0 if upper.lane else upper.outs[link.out]
            into = 0.0 if lower.lane else lower.ins[link.into]
            if upper.lane and lower.lane and (upper, lower) in seen:
                continue
            seen.add((upper, lower))
            steps.append(_Step(upper, lower, out, into, (1.0, 3.0, 24.0)[upper.lane + lower.lane]))
    return steps


# order in rows ------------------------------------------------------------------------------------


def _order(rows, above, below) -> None:
    """Median sweeps down and up, exchanging neighbours after each; the order with the fewest crossings stays."""
    _first_order(rows, above, below)
    place = {b: float(k) for row in rows for k, b in enumerate(row)}
    best, fewest = [list(row) for row in rows], _crossings(rows, place, below)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            _sort_row(row, place, above if down else below, down)
        if sum(map(len, rows)) < 2500:
            for row in rows:
                _exchange(row, place, above, below)
        crossings = _crossings(rows, place, below)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    for row, order in zip(rows, best, strict=True):
        row[:] = order


def _first_order(rows, above, below) -> None:
    """Boxes in the order in which a walk from the bottom meets them: what belongs together starts together."""
    number: dict[Box, int] = {}
    ends = [b for row in reversed(rows) for b in row if not below[b]]
    for end in ends:
        stack = [end]
        while stack:
            box = stack.pop()
            if box not in number:
                number[box] = len(number)
                stack += [s.upper for s in sorted(above[box], key=lambda s: s.into, reverse=True)]
    for row in rows:
        row.sort(key=lambda b: number[b])


def _sort_row(row, place, steps, down: bool) -> None:
    """Order a row by the mean position of each box's neighbours in the row before; boxes without any stay."""
    def wanted(box):
        found = steps[box]
        if not found:
            return place[box]
        ends = [place[s.upper] + _share(s.upper, s.out) if down else place[s.lower] + _share(s.lower, s.into)
                for s in found]
        return sum(ends) / len(ends)
    values = {b: wanted(b) for b in row}
    row.sort(key=values.__getitem__)
    for k, box in enumerate(row):
        place[box] = float(k)


def _share(box: Box, offset: float) -> float:
    """A port's offset as a part of one place."""
    return 0.8 * offset / box.width if box.width else 0.0


def _exchange(row, place, above, below) -> None:
    """Exchange neighbours of a row while that saves crossings."""
    for _ in range(3):
        changed = False
        for k in range(len(row) - 1):
            a, b = row[k], row[k + 1]
            if _pair_crossings(a, b, place, above, below) > _pair_crossings(b, a, place, above, below):
                row[k], row[k + 1] = b, a
                place[b], place[a] = float(k), float(k + 1)
                changed = True
        if not changed:
            return


def _pair_crossings(a, b, place, above, below) -> int:
    """Crossings between the links of two neighbours when `a` is left of `b`."""
    count = 0
    for steps, end in ((above, lambda s: place[s.upper] + _share(s.upper, s.out)),
                       (below, lambda s: place[s.lower] + _share(s.lower, s.into))):
        right = sorted(end(s) for s in steps[b])
        count += sum(bisect.bisect_left(right, end(s)) for s in steps[a])
    return count


def _crossings(rows, place, below) -> int:
    """The number of crossings between all rows."""
    total = 0
    for row in rows:
        ends = sorted((place[s.upper] + _share(s.upper, s.out), place[s.lower] + _share(s.lower, s.into))
                      for b in row for s in below[b])
        seen: list[float] = []
        for _, end in ends:
            at = bisect.bisect_right(seen, end)
            total += len(seen) - at
            seen.insert(at, end)
    return total


# positions ----------------------------------------------------------------------------------------


def _place(rows, above, below) -> None:
    """x of each box: near its neighbours' mean, in order, without overlaps. Long edges are straight."""
    for row in rows:
        x = 0.0
        for box in row:
            x += box.left
            box.x = x
            x += box.right + GAP
        for box in row:
            box.x -= x / 2
    for sweep in range(60):
        down = sweep % 2 == 0
        last = sweep >= 50
        for row in rows if down else rows[::-1]:
            targets, weights = [], []
            for box in row:
                pulls = [(s.upper.x + s.out - s.into, s.weight) for s in above[box]] if down or last else []
                pulls += [(s.lower.x + s.into - s.out, s.weight) for s in below[box]] if not down or last else []
                total = sum(w for _, w in pulls)
                targets.append(sum(x * w for x, w in pulls) / total if pulls else box.x)
                weights.append(total if pulls else 0.05)
            _settle(row, targets, weights)


def _settle(row: Sequence[Box], targets: Sequence[float], weights: Sequence[float]) -> None:
    """The positions nearest to the targets (least squares) that keep order and distances: isotonic regression."""
    shift, shifts = 0.0, []
    for k, box in enumerate(row):
        if k:
            gap = LANE if box.lane or row[k - 1].lane else GAP
            shift += row[k - 1].right + gap + box.left
        shifts.append(shift)
    blocks: list[list[float]] = []  # [mean, weight, count]
    for target, weight, moved in zip(targets, weights, shifts, strict=True):
        blocks.append([target - moved, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, total, count = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + mean * total) / (before[1] + total)
            before[1] += total
            before[2] += count
    k = 0
    for mean, _, count in blocks:
        for _ in range(int(count)):
            row[k].x = mean + shifts[k]
            k += 1


def _heights(rows, above, below) -> float:
    """y of each box, and lanes as high as their row. Rows are further apart where edges go far sideways."""
    y = 0.0
    for number, row in enumerate(rows):
        height = max(b.height for b in row)
        labelled = any(any(b.labels) and below[b] for b in row if not b.lane)
        for box in row:
            if box.lane:
                box.y, box.height = y, height + (LABEL_HEIGHT if labelled else 0)
            elif not above[box] and below[box]:
                box.y = y + height - box.height    # sources: near what they feed
            elif above[box] and not below[box]:
                box.y = y
            else:
                box.y = y + (height - box.height) / 2
        spans = [abs(s.upper.x + s.out - s.lower.x - s.into) for b in row for s in below[b]]
        room = min(110.0, 22.0 + 0.07 * max(spans, default=0.0)) if number < len(rows) - 1 else 0.0
        y += height + (LABEL_HEIGHT if labelled else 0) + room
        for box in row:
            box.row = number
    return y


def _route(rows, links: Sequence[Link]) -> None:
    """The corners of each link: a pair of points for each row, a vertical line joins them; curves lead to the next."""
    bottoms = []
    for row in rows:
        labelled = any(b.height for b in row if b.lane)
        lane = next((b for b in row if b.lane), None) if labelled else None
        plain = max((b.y + b.height for b in row if not b.lane), default=0.0)
        bottoms.append(lane.y + lane.height if lane else plain)
    tops = [min(b.y for b in row) for row in rows]
    for link in links:
        first, last = link.source, link.target
        x = first.x + first.outs[link.out]
        low = max(bottoms[first.row], first.y + first.height + (LABEL_HEIGHT if any(first.labels) else 0))
        points = [(x, first.y + first.height), (x, low)]
        for lane in link.chain[1:-1]:
            points += [(lane.x, lane.y), (lane.x, lane.y + lane.height)]
        end = last.x + last.ins[link.into]
        points += [(end, min(tops[last.row], last.y)), (end, last.y)]
        link.points = points
