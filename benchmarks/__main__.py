"""`python -m benchmarks`: time graphc and its peers on the same work, print the tables, draw the plots.  See README.md here."""
from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys

from benchmarks import machine, startup, table
from benchmarks.peers import PEERS
from benchmarks.results import OURS, Results
from benchmarks.runner import Runner
from benchmarks.workloads import CHECK_STEPS, GROUPS, SERIES, TOLERANCE, WORKLOADS, Workload

STARTUP = "startup"


def usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen(patterns: str | None, names, what: str, groups: dict[str, str] | None = None) -> list[str]:
    """Names that match a comma-separated list of names, wildcards and groups (name -> group), in their own order."""
    wanted, groups = patterns.split(",") if patterns else ["*"], groups or {}
    for pattern in wanted:
        if not fnmatch.filter([*names, *groups.values()], pattern):
            there = ", ".join([*names, *dict.fromkeys(groups.values())])
            raise SystemExit(f"no {what} matches {pattern!r}; there are: {there}")
    return [name for name in names
            if any(fnmatch.fnmatchcase(name, pattern) or groups.get(name) == pattern for pattern in wanted)]


def interpreters(options: list[str]) -> dict[str, str]:
    """Peer -> Python, from `PEER=PATH` (wildcards allowed) or `PATH`, which is for all peers but graphc."""
    found = {}
    for option in options:
        pattern, equals, path = option.rpartition("=")
        program = shutil.which(path)
        if not program:
            raise SystemExit(f"--python {option}: there is no program {path!r}")
        for peer in chosen(pattern, PEERS, "peer") if equals else [peer for peer in PEERS if peer != OURS]:
            found[peer] = os.path.abspath(program)
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help="comma-separated workloads, wildcards or groups "
                        f"({', '.join([*GROUPS, STARTUP])}); default: all")
    parser.add_argument("--peers", metavar="NAMES", help=f"of {', '.join(PEERS)}; default: whichever is installed")
    parser.add_argument("--python", metavar="[PEER=]PATH", action="append", default=[],
                        help="interpreter for a peer, or for all peers but graphc; may be repeated")
    parser.add_argument("--seconds", type=float, default=0.6, help="for each peer and workload (default 0.6)")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a peer may build a workload for (default 60)")
    parser.add_argument("--threads", default=str(usable_processors()), metavar="N[,N]", help="default: all usable processors")
    parser.add_argument("--json", metavar="FILE", help="keep the results there; what it holds already is not measured again")
    parser.add_argument("--again", action="store_true", help="measure again what the file holds")
    parser.add_argument("--plots", metavar="FOLDER", help="draw the plots of docs/performance.md there, from all results")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--list", action="store_true", help="list workloads and peers, and stop")
    options = parser.parse_args(arguments)
    try:
        options.threads = [int(count) for count in options.threads.split(",")]
    except ValueError:
        parser.error("--threads takes numbers")
    if min(options.threads) < 1 or options.seconds <= 0 or options.limit <= 0:
        parser.error("--threads, --seconds and --limit must be positive")
    return options


def progress(text: str) -> None:
    """One line on the terminal that is written over; nothing where no person watches."""
    if sys.stderr.isatty():
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def counts_of(workload: Workload, asked: list[int]) -> list[int]:
    """The numbers of threads that a workload is run with: its own, for a curve the largest, else all that are asked for."""
    if workload.threads:
        return [workload.threads]
    return [max(asked)] if workload.group in SERIES else asked


def measure(results: Results, options: argparse.Namespace, names: list[str], peers: list[str]) -> list[str]:
    """Time what is asked for and not yet known; returns peers that were asked for by name and could not be started."""
    pythons = interpreters(options.python)
    runner = Runner(pythons, options.seconds, options.limit, progress)
    counts = {workload.threads for workload in WORKLOADS.values() if workload.name in names and workload.threads}
    for threads in sorted({*options.threads, *counts}, reverse=True):
        wanted = [(workload, results.pending(workload, threads, peers, options.again)) for workload in map(WORKLOADS.get, names)
                  if threads in counts_of(workload, options.threads)]
        wanted = [(workload, pending) for workload, pending in wanted if pending]
        if not wanted:
            continue
        progress("measuring the machine")
        results.add_machine(machine.measure(threads))
        for row in runner.run(wanted, threads):
            results.data["versions"] |= runner.versions
            results.add(row, options.again)
    absent = runner.absent
    results.data["absent"] = {peer: why for peer, why in {**results.data["absent"], **absent}.items()
                              if peer not in results.data["versions"]}
    results.data["notes"] += [note for note in runner.notes if note not in results.data["notes"]]
    results.save()
    return [f"{peer} could not be started, {why}" for peer, why in absent.items() if options.peers or peer == OURS]


def measure_startup(results: Results, options: argparse.Namespace, peers: list[str]) -> None:
    pythons = interpreters(options.python)
    for peer in peers:
        if peer in results.data["startup"] and not options.again:
            continue
        progress(f"starting {peer} several times")
        try:
            found = startup.measure(peer, pythons.get(peer, sys.executable), max(options.threads), 2 * options.limit)
        except (subprocess.SubprocessError, OSError) as error:
            results.data["notes"].append(f"startup: {peer} left out, {type(error).__name__}")
            continue
        results.data["startup"][peer] = found
        results.save()


def report(results: Results, names: list[str], failures: list[str], markdown: bool) -> str:
    """Header, tables and notes as one text."""
    data, bullet = results.data, "- " if markdown else "  "
    rows = [row for row in results.rows if row["workload"] in names]
    parts = []
    for threads in dict.fromkeys(row["threads"] for row in rows):
        here = [row for row in rows if row["threads"] == threads]
        usual = [row for row in here if row["group"] not in SERIES]
        parts += [machine.sentence(results.facts(threads)), table.floors(results, usual, markdown),
                  table.times(here, markdown), table.new_sizes(here, markdown), table.builds(here, markdown)]
    parts.append(table.startup(results, markdown))
    parts.append("\n".join(f"{bullet}{version}" for peer in PEERS if (version := data["versions"].get(peer))))
    compared = [row for row in rows if len(row["check"]) > 1]
    agreeing = sum(row["disagreement"] is None for row in compared)
    closing = [f"{bullet}{peer}: not available, {why}" for peer, why in data["absent"].items()]
    if compared:
        closing.append(f"{bullet}Results (training: the loss of step {CHECK_STEPS}) agree within {TOLERANCE:g} "
                       f"on {agreeing} of {len(compared)} rows.")
    closing += [f"{bullet}note: {note}" for note in data["notes"]]
    closing += [f"{bullet}FAILED: {failure}" for failure in failures]
    return "\n\n".join(part for part in [*parts, "\n".join(closing)] if part)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        for workload in WORKLOADS.values():
            print(f"{workload.name:<20}  {workload.group:<12} {workload.doc}")
        print("peers: " + ", ".join(PEERS))
        return 0
    groups = {workload.name: workload.group for workload in WORKLOADS.values()}
    every = chosen(options.only, [*WORKLOADS, STARTUP], "workload", groups)
    names = [name for name in every if name != STARTUP]
    peers = chosen(options.peers, PEERS, "peer")
    results = Results(options.json)
    failures = measure(results, options, names, peers)
    if STARTUP in every:
        measure_startup(results, options, [peer for peer in peers if peer not in results.data["absent"]])
    progress("")
    failures += results.failures
    if options.plots:
        from benchmarks import plots  # the only part that needs matplotlib

        plots.draw(results, options.plots)
    print(report(results, names, failures, options.markdown))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
