"""Turns results into the tables that a person reads, as aligned text or as Markdown."""
from __future__ import annotations

import statistics
from decimal import Decimal

from benchmarks.peers import PEERS
from benchmarks.runner import Result

OURS = "graphc"
PRODUCT_FLOPS = 1e6     # smaller rows say nothing about arithmetic, so no rate is printed for them


def grid(rows: list[list[str]], markdown: bool) -> str:
    """Rows of cells, the first being the header; the first column is left-aligned, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: list[str]) -> str:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    rule = ["-" * widths[0]] + ["-" * (width - 1) + (":" if markdown else "-") for width in widths[1:]]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def number(value: float) -> str:
    """Three significant digits, or all before the point, never in exponents: 0.00672, 1.25, 302, 1208."""
    return f"{value:.0f}" if value >= 1000 else f"{Decimal(f'{value:.2e}'):f}"


def columns_of(results: list[Result]) -> list[str]:
    """All columns that any row has, in the order of the list of peers."""
    names = dict.fromkeys(name for result in results for name in result.columns)
    return sorted(names, key=lambda name: list(PEERS).index(name.split()[0]))


def times(results: list[Result], markdown: bool) -> str:
    """The main table: medians in milliseconds; behind those of others how many times longer they took than graphc."""
    names = columns_of(results)
    rows = [["milliseconds", *names]]
    for result in results:
        others = {n: c.median for n, c in result.columns.items() if not n.startswith(OURS)}
        best = min(others, key=others.__getitem__) if others else None
        cells = []
        for name in names:
            column, ours = result.columns.get(name), result.columns.get(OURS)
            if column is None:
                cells.append("-")
                continue
            cell = number(column.median * 1e3)
            if name == best:
                cell = f"**{cell}**" if markdown else f"*{cell}"
            if ours and name != OURS:
                ratio = column.ratio_to(ours)
                cell += f" (x{ratio:{'.2g' if ratio < 1 else '.1f' if ratio < 10 else '.0f'}})"
            cells.append(cell)
        rows.append([result.workload.name, *cells])
    return grid(rows, markdown)


def builds(results: list[Result], markdown: bool) -> str:
    """Seconds to build and call once with empty caches, which is mostly compiling."""
    names = [peer for peer in PEERS if any(peer in result.build_seconds for result in results)]
    rows = [["build and first call, s", *names]]
    for result in results:
        seconds = result.build_seconds
        rows.append([result.workload.name, *(number(seconds[n]) if n in seconds else "-" for n in names)])
    return grid(rows, markdown)


def rates(results: list[Result], facts: dict, markdown: bool) -> str | None:
    """Speeds of the rows that are limited by arithmetic or memory, with their share of what the machine can do."""
    rows = [["rate (share of this machine's limit)", *columns_of(results)]]
    for result in results:
        workload = result.workload
        if workload.bytes:
            unit, amount = "GB/s", workload.bytes
            limit = facts["copy_bytes_1"] if result.threads == 1 else facts["copy_bytes"]
        elif workload.flops > PRODUCT_FLOPS and workload.name != "new_batch":
            unit, amount = "GFLOP/s", workload.flops
            limit = facts["peak_flops"] and facts["peak_flops"] * result.threads
        else:
            continue
        cells = []
        for name in rows[0][1:]:
            column = result.columns.get(name)
            rate = column and amount / column.median
            cells.append("-" if not column else
                         f"{rate / 1e9:.0f}" + (f" ({100 * rate / limit:.0f} %)" if limit else ""))
        rows.append([f"{workload.name}, {unit}", *cells])
    return grid(rows, markdown) if len(rows) > 1 else None


def new_sizes(results: list[Result], markdown: bool) -> str | None:
    """For `new_batch`, what the median hides: the slowest first call, and the usual time of such a call."""
    result = next((result for result in results if result.workload.name == "new_batch"), None)
    if result is None or not result.columns:
        return None
    names = columns_of([result])
    columns = [result.columns[name] for name in names]
    rows = [["new batch size, ms", *names],
            ["first call, median", *(number(column.median * 1e3) for column in columns)],
            ["first call, worst", *(number(max(column.samples) * 1e3) for column in columns)],
            ["usual call", *(number(statistics.median(column.usual) * 1e3) for column in columns)]]
    return grid(rows, markdown)


def as_data(results: list[Result]) -> list[dict]:
    """The results for `--json`: medians, tenths and ratios instead of thousands of samples."""
    def summary(result: Result, name: str) -> dict:
        column = result.columns[name]
        tenths = statistics.quantiles(column.samples, n=10)
        data = {"median": column.median, "low": tenths[0], "high": tenths[-1], "samples": len(column.samples)}
        if OURS in result.columns and name != OURS:
            data["ratio_to_graphc"] = column.ratio_to(result.columns[OURS])
        if column.usual:
            data |= {"worst": max(column.samples), "usual": statistics.median(column.usual)}
        return data

    return [{
        "workload": result.workload.name,
        "doc": result.workload.doc,
        "threads": result.threads,
        "seconds": {name: summary(result, name) for name in result.columns},
        "build_seconds": result.build_seconds,
        "check": {peer: values[0] for peer, values in result.fingerprints.items()},
        "disagreement": result.disagreement,
    } for result in results]
