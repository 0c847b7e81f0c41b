"""The plots of docs/performance.md, drawn with matplotlib from results: SVG files, readable on light and dark pages."""
from __future__ import annotations

import io
import re
from pathlib import Path

from benchmarks.data import shapes
from benchmarks.results import OURS, Results, best_peer
from benchmarks.workloads import SERIES, WORKLOADS

INK = "#7d8590"         # text and axes: a grey with the same contrast on white and on black
COLOURS = {"graphc": "#2f81f7", "floor": INK, "numpy": "#d29922", "torch": "#db6d28", "jax": "#a371f7", "tensorflow": "#3fb950",
           "onnxruntime": "#f778ba"}
OTHER = "#d29922"       # the best peer, whichever it is
SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "graphc", "font.family": "sans-serif", "font.size": 9, "text.color": INK,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "grid.color": INK, "grid.alpha": 0.25, "legend.frameon": False, "axes.linewidth": 0.6,
}


def draw(results: Results, folder: str) -> list[Path]:
    """Write each plot that there are results for; returns the files."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    written = []
    with matplotlib.rc_context(SETTINGS):
        for name, plot in {"floors": floors, "batch": batch, "threads": threads, "width": width}.items():
            figure = plot(results, pyplot)
            if figure is not None:
                path, text = Path(folder) / f"performance-{name}.svg", io.StringIO()
                figure.savefig(text, format="svg", transparent=True, bbox_inches="tight",
                               metadata={"Date": None, "Creator": None})
                # A hundredth of a point is enough for coordinates, which have six digits; labels have fewer.
                path.write_text(re.sub(r"(\.\d\d)\d{3,}", r"\1", text.getvalue()))
                pyplot.close(figure)
                written.append(path)
    return written


def usual_rows(results: Results) -> list[dict]:
    """The rows of the summary: with the most threads, or with as many as the workload has."""
    most = max((row["threads"] for row in results.rows), default=1)
    return [row for row in results.rows if row["group"] not in SERIES and OURS in row["seconds"]
            and row["threads"] == (WORKLOADS[row["workload"]].threads or most)]


def floors(results: Results, pyplot):
    """Times over the floor, for graphc and its best peer: a line for each workload, the peer's name behind it."""
    rows = [(row, results.floor(row)) for row in usual_rows(results)]
    rows = [(row, floor) for row, floor in rows if floor][::-1]
    if not rows:
        return None
    figure, axes = pyplot.subplots(figsize=(6.6, 0.8 + 0.21 * len(rows)))
    for place, (row, floor) in enumerate(rows):
        ours, best = row["seconds"][OURS]["median"] / floor, best_peer(row)
        if best:
            other = row["seconds"][best]["median"] / floor
            axes.plot([ours, other], [place, place], color=INK, linewidth=0.8, alpha=0.6, zorder=1)
            axes.plot(other, place, "o", color=OTHER, markersize=4.5, zorder=2, label="best peer")
            axes.annotate(best, (max(ours, other), place), (6, 0), textcoords="offset points", va="center", fontsize=7)
        axes.plot(ours, place, "o", color=COLOURS[OURS], markersize=5.5, zorder=3, label=OURS)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row["workload"] for row, _ in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("time of a call over the floor (1 is all that the machine can do)")
    plain_numbers(axes.xaxis)
    axes.grid(axis="x")
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend([handles[name] for name in sorted(handles, reverse=True)], sorted(handles, reverse=True), loc="lower center",
                bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def batch(results: Results, pyplot):
    """Time for each example against the batch size, of the two nets that there is a series of."""
    found = [(title, points(results, pattern, batch_of)) for title, pattern in
             (("784-128-10, Adam", r"mlp128_train_b(\d+)"), ("LeNet, SGD with momentum", r"lenet_train_b(\d+)"))]
    found = [(title, curves) for title, curves in found if len(curves.get(OURS, [])) > 1]
    if not found:
        return None
    figure, panels = pyplot.subplots(1, len(found), figsize=(3.6 * len(found), 2.9), squeeze=False)
    for axes, (title, curves) in zip(panels[0], found, strict=True):
        lines(axes, {name: [(x, seconds / x * 1e6) for x, seconds in curve] for name, curve in curves.items()})
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("batch size")
    panels[0][0].set_ylabel("training step, µs for each example")
    legend(figure, panels[0])
    return figure


def batch_of(row: dict) -> float:
    return WORKLOADS[row["workload"]].batch


def width(results: Results, pyplot):
    """Time of a step against the number of weights."""
    curves = points(results, r"mlp(\d+)_train_b32|mlp(10)_train", weights_of)
    if len(curves.get(OURS, [])) < 2:
        return None
    figure, axes = pyplot.subplots(figsize=(5, 3.2))
    lines(axes, {name: [(x, seconds * 1e3) for x, seconds in curve] for name, curve in curves.items()})
    axes.set_xlabel("weights of 784-n-10, n from 8 to 2048, batch 32, Adam")
    axes.set_ylabel("training step, ms")
    legend(figure, [axes])
    return figure


def weights_of(row: dict) -> float:
    total = 0
    for shape, _ in shapes(WORKLOADS[row["workload"]]):
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def points(results: Results, pattern: str, position) -> dict[str, list[tuple[float, float]]]:
    """Peer -> (position, seconds) of all rows whose workload matches, with the most threads; and of the floor."""
    most = max((row["threads"] for row in results.rows), default=1)
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in results.rows:
        if row["threads"] != most or not re.fullmatch(pattern, row["workload"]):
            continue
        values = {name: column["median"] for name, column in row["seconds"].items() if name in COLOURS}
        if floor := results.floor(row):
            values["floor"] = floor
        for name, seconds in values.items():
            curves.setdefault(name, []).append((position(row), seconds))
    return {name: sorted(curve) for name, curve in curves.items()}


def threads(results: Results, pyplot):
    """How many times faster than on one thread, for graphc and the peer that is best with the most threads."""
    found = []
    for row in usual_rows(results):
        alone = results.row(row["workload"], 1)
        if row["threads"] == 1 or not alone or OURS not in alone["seconds"]:
            continue
        best = best_peer(row)
        found.append((row["workload"], *(
            alone["seconds"][name]["median"] / row["seconds"][name]["median"] if name in alone["seconds"] else None
            for name in (OURS, best))))
    if not found:
        return None
    most = max(row["threads"] for row in results.rows)
    figure, axes = pyplot.subplots(figsize=(6.6, 0.8 + 0.21 * len(found)))
    for place, (_, ours, other) in enumerate(found[::-1]):
        if other:
            axes.plot(other, place, "o", color=OTHER, markersize=4.5, label="best peer")
        axes.plot(ours, place, "o", color=COLOURS[OURS], markersize=5.5, label=OURS)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.axvline(most, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(found)), [name for name, *_ in found[::-1]])
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_xlabel(f"times faster with {most} threads than with one")
    axes.grid(axis="both")
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend([handles[name] for name in sorted(handles, reverse=True)], sorted(handles, reverse=True), loc="lower center",
                bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def lines(axes, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Curves of peers on two logarithmic axes, the floor dashed, graphc on top; none of a peer that most points lack."""
    for name, colour in COLOURS.items():
        if 2 * len(curves.get(name, [])) > len(curves[OURS]):
            axes.plot(*zip(*curves[name], strict=True), color=colour, label=name, marker=None if name == "floor" else "o",
                      markersize=3, linestyle="--" if name == "floor" else "-", linewidth=2 if name == OURS else 1.2,
                      zorder=3 if name == OURS else 2)
    axes.set_xscale("log", base=2 if max(x for x, _ in curves[OURS]) < 1e4 else 10)
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    plain_numbers(axes.xaxis)
    axes.grid()


def plain_numbers(axis) -> None:
    """1,000 and 0.01 instead of powers of ten, and more ticks where there are few powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if axis.get_transform().base == 10 and high < 200 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure, panels) -> None:
    handles: dict = {}
    for axes in panels:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=min(len(handles), 7),
                  handlelength=1.4, columnspacing=1.2)
    figure.tight_layout()
