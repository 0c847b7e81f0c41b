"""The source of one kernel: traced bodies, and a skeleton of loops around them."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graphc.codegen.cpu.bodies import Body, number


@dataclass
class KernelSource:
    """What `build` compiles. `text` is a Python module; `traced` maps the name of each body that the skeleton calls to
    (body function, result dtypes, constants, registers of a vector); `splats` to (dtype, value); `tiles` to what makes the
    `glue.Code` of others. is_skeleton: it does arithmetic on sizes alone, which `skeleton.py` compiles; else it is a routine,
    whose `tiles` make Numba's intrinsics, and may also divide by 0 or by a negative number.
    """

    name: str
    text: str
    lanes: int
    traced: dict[str, tuple[str, tuple[str, ...], dict, int]]
    splats: dict[str, tuple[str, float | int | bool]]
    tiles: dict[str, object] = field(default_factory=dict)
    is_skeleton: bool = True


class Skeleton:
    """Writes the loops of a kernel, and keeps the bodies that they call."""

    def __init__(self, kernel, lanes: int):
        self.kernel, self.lanes = kernel, lanes
        self.lines: list[str] = []
        self.indents: list[int] = [1]
        self.steps: list[str] = []      # what ends the block of each indent but the first: a loop's step
        self.bodies: list[Body] = []
        self.traced: dict[str, tuple[str, tuple[str, ...], dict, int]] = {}
        self.splats: dict[str, tuple[str, float | int | bool]] = {}
        names = [*kernel.buffers, *kernel.sizes] + (["error", "record"] if kernel.may_fail else [])
        for k, name in enumerate(names):
            self.line(f"{name} = arg(args, {k})")

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indents[-1] + text)

    def open(self, text: str, step: str = "") -> None:
        """A line that starts a block."""
        self.line(text)
        self.indents.append(self.indents[-1] + 1)
        self.steps.append(step)

    def loop(self, name: str, start, stop, step: int = 1) -> None:
        """Open a loop of `name` from `start` in steps while below `stop`."""
        if not str(stop).isalnum():
            self.line(f"{name}_end = {stop}")
            stop = f"{name}_end"
        if start != name:   # else it goes on from where it is
            self.line(f"{name} = {start}")
        self.open(f"while {name} < {stop}:", f"{name} += {step}")

    def close(self) -> None:
        for line in self.steps.pop().splitlines():
            self.line(line)
        self.indents.pop()

    def close_to(self, depth: int) -> None:
        """Close blocks until only `depth` are open."""
        while len(self.indents) > depth:
            self.close()

    def rows(self, axes: Sequence[tuple[str, object]], part: tuple[str, str] | None = None) -> None:
        """Open the loop over this thread's part of all points of `axes`, or over `part`, and work out the coordinates."""
        if not axes:
            return
        count = str(axes[0][1]) if len(axes) == 1 else "rows"
        first, last = part or (f"{count} * thread // threads", f"{count} * (thread + 1) // threads")
        if len(axes) == 1:
            self.loop(axes[0][0], first, last)
            return
        self.line(f"rows = {' * '.join(str(size) for _, size in axes)}")
        self.points(axes, first, last)

    def points(self, axes: Sequence[tuple[str, object]], first: str, last: str) -> None:
        """Open the loop of `row` over the points of `axes` from number `first` to `last`. The coordinates of the first one are
        worked out; from one to the next they are counted on, as a division takes as long as dozens of multiply-adds.
        """
        self.line(f"row_end = {last}")
        self.line(f"row = {first}")
        for axis, _ in axes:
            self.line(f"{axis} = 0")
        self.open("if row < row_end:")      # else a size may be 0
        self.line("rest = row")
        for axis, size in reversed(axes[1:]):
            self.line(f"{axis} = rest % {size}")
            self.line(f"rest = rest // {size}")
        self.line(f"{axes[0][0]} = rest")
        self.close()
        step = ["row += 1"]
        for depth, (axis, size) in enumerate(reversed(axes)):
            step.append("    " * depth + f"{axis} += 1")
            if depth < len(axes) - 1:
                step += ["    " * depth + f"if {axis} == {size}:", "    " * (depth + 1) + f"{axis} = 0"]
        self.open("while row < row_end:", "\n".join(step))

    def minimum(self, name: str, a: str, b: str) -> None:
        """name = the smaller of two."""
        self.line(f"{name} = {a}")
        self.line(f"{name} = {name} if {name} < {b} else {b}")

    def splat(self, name: str, dtype: str, value) -> None:
        """name = a vector of one number."""
        key = f"start_{len(self.splats)}"
        for known, entry in self.splats.items():
            if entry == (dtype, value) and type(entry[1]) is type(value):
                key = known
        self.splats[key] = (dtype, value)
        self.line(f"{name} = {key}()  # {number(value)}")

    def call(self, body: Body, count: str | None = None, suffix: str = "", named: Callable[[str], str] = str) -> None:
        """Call a body, masked to `count` lanes if given; accumulators carry `suffix` in the skeleton's names, and `named` gives
        what a name of the body is called there.
        """
        if not body.lines and not body.results:
            return
        intrinsic, constants = body.name, {}
        if "count" in body.parameters and count is None:
            constants = {"count": None}
            intrinsic += "_whole"
        self.traced[intrinsic] = (body.name, tuple(d for _, d in body.results), constants, body.wide)
        results = [n for n, _ in body.results]
        arguments = []
        for p in body.parameters:
            if p == "count":
                arguments += [count] if count is not None else []
            else:
                arguments.append(named(p) + (suffix if p in results else ""))
        text = f"{intrinsic}({', '.join(str(a) for a in arguments)})"
        self.line(f"{', '.join(named(n) + suffix for n in results)} = {text}" if results else text)

    def source(self, preamble: str = "") -> KernelSource:
        """The finished module."""
        self.close_to(1)
        used = {name for name, *_ in self.traced.values()}
        bodies = "\n\n".join(b.text() for b in self.bodies if b.name in used)
        head = f'"""Kernel {self.kernel.name}, vectors of {self.lanes}: traced bodies, and `kernel` around them."""\n'
        skeleton = "def kernel(args, thread, threads):\n" + "\n".join(self.lines) + "\n"
        return KernelSource(self.kernel.name, "\n\n".join([head + preamble, bodies, skeleton]), self.lanes, dict(self.traced),
                            dict(self.splats))
