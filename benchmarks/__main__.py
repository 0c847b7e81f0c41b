"""`python -m benchmarks`: time graphc and its peers on the same work and print the table.  See README.md here."""
from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import sys

from benchmarks import machine, table
from benchmarks.peers import PEERS
from benchmarks.runner import Runner
from benchmarks.workloads import CHECK_STEPS, TOLERANCE, WORKLOADS


def usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen(patterns: str | None, names, what: str) -> list[str]:
    """Names that match a comma-separated list of names and wildcards, in their own order."""
    wanted = patterns.split(",") if patterns else ["*"]
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            raise SystemExit(f"no {what} matches {pattern!r}; there are: {', '.join(names)}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]


def interpreters(options: list[str]) -> dict[str, str]:
    """Peer -> Python, from `PEER=PATH` (wildcards allowed) or `PATH`, which is for all peers but graphc."""
    found = {}
    for option in options:
        pattern, equals, path = option.rpartition("=")
        program = shutil.which(path)
        if not program:
            raise SystemExit(f"--python {option}: there is no program {path!r}")
        for peer in chosen(pattern, PEERS, "peer") if equals else [peer for peer in PEERS if peer != "graphc"]:
            found[peer] = os.path.abspath(program)
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workload", metavar="NAMES", help="comma-separated names or wildcards; default: all")
    parser.add_argument("--peers", metavar="NAMES", help=f"of {', '.join(PEERS)}; default: whichever is installed")
    parser.add_argument("--python", metavar="[PEER=]PATH", action="append", default=[],
                        help="interpreter for a peer, or for all peers but graphc; may be repeated")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each peer and workload (default 1)")
    parser.add_argument("--threads", type=int, default=usable_processors(), help="default: all usable processors")
    parser.add_argument("--json", action="store_true", help="print data instead of tables")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--list", action="store_true", help="list workloads and peers, and stop")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.seconds <= 0:
        parser.error("--threads and --seconds must be positive")
    return options


def progress(text: str) -> None:
    """One line on the terminal that is written over; nothing where no person watches."""
    if sys.stderr.isatty():
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def report(runner: Runner, results: list, facts: dict, markdown: bool) -> str:
    """Header, tables and notes as one text."""
    bullet = "- " if markdown else "  "
    lines = [machine.sentence(facts), ""]
    lines += [f"{bullet}{peer}: {runner.versions.get(peer) or 'not available, ' + runner.absent[peer]}"
              for peer in runner.peers]
    lines += ["", f"Medians; the best of graphc's peers is {'bold' if markdown else 'starred'}."]
    if any(table.OURS in result.columns for result in results):
        lines[-1] += "  In brackets: how many times longer a call took than graphc's."
    lines.append("")
    tables = [table.times(results, markdown), table.rates(results, facts, markdown),
              table.new_sizes(results, markdown), table.builds(results, markdown)]
    lines.append("\n\n".join(text for text in tables if text))
    compared = [result for result in results if len(result.fingerprints) > 1]
    agreeing = sum(result.disagreement is None for result in compared)
    if compared:
        lines += ["", f"Results (training: the loss of step {CHECK_STEPS}) agree within {TOLERANCE:g} "
                  f"on {agreeing} of {len(compared)} workloads."]
    lines += [f"{bullet}note: {note}" for note in runner.notes]
    lines += [f"{bullet}FAILED: {failure}" for failure in runner.failures]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        for workload in WORKLOADS.values():
            print(f"{workload.name:<20}  {workload.doc}")
        print("peers: " + ", ".join(PEERS))
        return 0
    workloads = [WORKLOADS[name] for name in chosen(options.workload, WORKLOADS, "workload")]
    peers = chosen(options.peers, PEERS, "peer")
    runner = Runner(peers, interpreters(options.python), options.seconds, progress)
    progress("measuring the machine")
    facts = machine.measure(options.threads)
    results = runner.run(workloads, options.threads)
    progress("")
    for peer, reason in runner.absent.items():
        if options.peers or peer == "graphc":       # asked for, or what all this is about
            runner.failures.append(f"{peer} could not be started, {reason}")
    if options.json:
        print(json.dumps({"machine": facts, "versions": runner.versions, "absent": runner.absent,
                          "results": table.as_data(results), "notes": runner.notes, "failures": runner.failures},
                         indent=2))
    else:
        print(report(runner, results, facts, options.markdown))
    return 1 if runner.failures else 0


if __name__ == "__main__":
    sys.exit(main())
