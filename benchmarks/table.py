"""Turns results into the tables that a person reads, as aligned text or as Markdown."""
from __future__ import annotations

from decimal import Decimal

from benchmarks.peers import PEERS
from benchmarks.results import OURS, Results, best_peer

# How many times faster than the best peer a workload must be, and would be in a dream.
TARGETS = {
    "linreg_train": (1.2, 2), "logreg_train": (1.5, 3), "mlp10_train": (3, 5), "mlp128_train_b32": (2.5, 4),
    "mlp128_train_b512": (1.7, 2.5), "lenet_train_b64": (3.5, 5), "lstm_train": (2, 2.5), "mlp128_infer_b1": (1.2, 1.6),
    "mlp128_infer_b512": (1.1, 1.25), "lenet_infer_b1": (2, 4), "lenet_infer_b64": (2, 3), "lstm_infer_b1": (1.3, 2),
    "gelu_grad": (4, 6), "softmax_rows": (1.1, 1.4), "mm_gelu_1024": (1.15, 1.25), "mm_gelu_64": (1.5, 2),
    "loop_100k": (2.4, 2.6),
}
STARTUP = {     # what `startup.measure` finds -> the row's title, and the factor to the unit in it
    "cold": ("cold: build, compile, first step, s", 1), "warm": ("warm: second process, Python start to first step, s", 1),
    "import": ("import, s", 1), "import_beyond": ("import beyond NumPy, s", 1), "resident": ("resident, MB", 1e-6),
    "resident_beyond": ("resident beyond NumPy, MB", 1e-6), "installed": ("installed, MB", 1e-6),
}


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


def times_as_long(ratio: float) -> str:
    return f"x{ratio:{'.2g' if ratio < 1 else '.1f' if ratio < 10 else '.0f'}}"


def columns_of(rows: list[dict]) -> list[str]:
    """All columns that any row has, in the order of the list of peers."""
    names = dict.fromkeys(name for row in rows for name in row["seconds"])
    return sorted(names, key=lambda name: list(PEERS).index(name.split()[0]))


def times(rows: list[dict], markdown: bool) -> str:
    """The main table: medians in milliseconds; behind those of others how many times longer they took than graphc."""
    names = columns_of(rows)
    lines = [["milliseconds", *names]]
    for row in rows:
        best, cells = best_peer(row), []
        for name in names:
            column = row["seconds"].get(name)
            if column is None:
                cells.append("-")
                continue
            cell = number(column["median"] * 1e3)
            if name == best:
                cell = f"**{cell}**" if markdown else f"*{cell}*"
            if column["ratio"] and name != OURS:
                cell += f" ({times_as_long(column['ratio'])})"
            cells.append(cell)
        lines.append([row["workload"], *cells])
    return grid(lines, markdown)


def floors(results: Results, rows: list[dict], markdown: bool) -> str | None:
    """graphc beside the best peer, the target and the floor, for the rows that graphc is in."""
    lines = [["milliseconds", OURS, "best peer", "its time", "faster", "must", "dream", "floor", "graphc / floor",
              "peer / floor"]]
    for row in rows:
        if OURS not in row["seconds"]:
            continue
        ours, best, floor = row["seconds"][OURS], best_peer(row), results.floor(row)
        must, dream = TARGETS.get(row["workload"], ("", ""))
        cells = [number(ours["median"] * 1e3), "-", "-", "-"]
        if best:
            other = row["seconds"][best]
            cells[1:] = [best, number(other["median"] * 1e3), times_as_long(other["ratio"])]
            if must and other["ratio"] < must:
                cells[3] = f"**{cells[3]}**" if markdown else f"*{cells[3]}"
        cells += [str(must), str(dream), number(floor * 1e3) if floor else "-"]
        cells += [number(row["seconds"][name]["median"] / floor) if floor and name else "-" for name in (OURS, best)]
        lines.append([row["workload"], *cells])
    return grid(lines, markdown) if len(lines) > 1 else None


def builds(rows: list[dict], markdown: bool) -> str:
    """Seconds to build and call once with empty caches, which is mostly compiling; or how long was too long."""
    limits = {peer for row in rows for peer, (kind, _) in row["missing"].items() if kind == "limit"}
    names = [peer for peer in PEERS if peer in limits or any(peer in row["build"] for row in rows)]
    lines = [["build and first call, s", *names]]
    for row in rows:
        slow = {peer: why for peer, (kind, why) in row["missing"].items() if kind == "limit"}
        lines.append([row["workload"], *(number(row["build"][n]) if n in row["build"] else slow.get(n, "-").removesuffix(" s")
                                         for n in names)])
    return grid(lines, markdown)


def new_sizes(rows: list[dict], markdown: bool) -> str | None:
    """For `new_batch`, what the median hides: the slowest first call, and the usual time of such a call."""
    row = next((row for row in rows if row["workload"] == "new_batch" and row["seconds"]), None)
    if row is None:
        return None
    columns = row["seconds"].values()
    return grid([["new batch size, ms", *row["seconds"]],
                 ["first call, median", *(number(column["median"] * 1e3) for column in columns)],
                 ["first call, worst", *(number(column["worst"] * 1e3) for column in columns)],
                 ["usual call", *(number(column["usual"] * 1e3) for column in columns)]], markdown)


def startup(results: Results, markdown: bool) -> str | None:
    """What starting costs, by peer."""
    found = results.data["startup"]
    names = [peer for peer in PEERS if peer in found]
    if not names:
        return None
    lines = [["start", *names]]
    for key, (title, factor) in STARTUP.items():
        lines.append([title, *("-" if found[n].get(key) is None else found[n][key] if isinstance(found[n][key], str)
                               else number(found[n][key] * factor) for n in names)])
    lines.append(["the step of cold and warm", *(found[name].get("workload") or "-" for name in names)])
    return grid(lines, markdown)
