"""Starts one worker process per peer, gives them slices of time in turn, and gathers what they report.

A worker that fails or takes too long to build loses that row only: it is ended and starts anew for the next one.
"""
from __future__ import annotations

import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.results import OURS
from benchmarks.workloads import Workload

SLICE = 0.2             # seconds that one peer runs before it is another's turn
IDLE_AT_MOST = 0.03     # seconds of processor time that a waiting peer may use before a note says so
NEW_SIZES = 10          # batch sizes per round of `new_batch`
PATIENCE = 120          # seconds that a request may take which compiles nothing
ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A worker could not do what it was asked."""


class WorkerUnsupported(WorkerError):
    """A peer has no way to do the workload."""


class WorkerSlow(WorkerError):
    """A peer did not answer in time, and was ended."""


class Worker:
    """A peer's process, seen from the runner: requests go out and replies come back as lines of JSON."""

    def __init__(self, peer: str, python: str, threads: int, folder: Path):
        self.peer, self.log = peer, folder / f"{peer}.log"
        self.idle_cpu = 0.0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", peer], cwd=ROOT, env=environment(threads, folder / peer),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.replies: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.version = self.request(do="start", threads=threads)["version"]

    def _read(self) -> None:
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put(None)      # the process has ended

    def request(self, patience: float = PATIENCE, **request) -> dict:
        """Send one request and wait for its reply."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.replies.get(timeout=patience)
        except queue.Empty:
            self.process.kill()
            self.process.wait()
            raise WorkerSlow(f"no answer to {request['do']!r} in {patience:.0f} s, ended") from None
        except OSError:
            line = None
        if line is None:
            code = self.process.wait()
            raise WorkerError(f"its process ended with exit code {code}: {self._last_words()}")
        reply = json.loads(line)
        self.idle_cpu = reply.get("idle_cpu", 0.0)
        if "unsupported" in reply:
            raise WorkerUnsupported(reply["unsupported"])
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        if self.alive:
            try:
                self.process.stdin.write('{"do": "quit"}\n')
                self.process.stdin.close()
                self.process.wait(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
        self.process.wait()


def environment(threads: int, cache: Path) -> dict[str, str]:
    """The settings every worker runs under: the same number of threads, and compile caches that start out empty."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "GRAPHC_NUM_THREADS",
             "NPROC")       # the last is XLA's
    caches = {"TORCHINDUCTOR_CACHE_DIR": cache, "NUMBA_CACHE_DIR": cache, "GRAPHC_CACHE_DIR": cache,
              "CACHEDB": cache / "tinygrad.db"}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        **dict.fromkeys(names, count),
        **{name: str(folder) for name, folder in caches.items()},
        "PYTENSOR_FLAGS": f"base_compiledir={cache}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


@dataclass
class Column:
    """What one way of calling one peer took: seconds per call, round by round."""

    rounds: list[list[float]] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)        # for `new_batch`: later calls with the same size

    @property
    def samples(self) -> list[float]:
        return [sample for samples in self.rounds for sample in samples]

    @property
    def median(self) -> float:
        """The median of the rounds' medians: a round that was disturbed has fewer samples, but counts as much."""
        return statistics.median(statistics.median(samples) for samples in self.rounds)

    def ratio_to(self, other: Column) -> float:
        """How many times longer this took than the other: the median over rounds, since neighbours drift together."""
        pairs = zip(self.rounds, other.rounds, strict=False)
        return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)


@dataclass
class Result:
    """One row of the table as it is measured."""

    workload: Workload
    threads: int
    columns: dict[str, Column] = field(default_factory=dict)        # "graphc", "graphc Session.run", "numpy", ...
    build: dict[str, float] = field(default_factory=dict)
    check: dict[str, list[list[float]]] = field(default_factory=dict)
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)

    def row(self) -> dict:
        """As plain data, see `results.Results`: medians, tenths and ratios instead of thousands of samples."""
        return {"workload": self.workload.name, "doc": self.workload.doc, "group": self.workload.group, "threads": self.threads,
                "seconds": {name: self._summary(name) for name in self.columns}, "build": self.build, "check": self.check,
                "missing": {peer: list(why) for peer, why in self.missing.items()}, "disagreement": None}

    def _summary(self, name: str) -> dict:
        column, ours = self.columns[name], self.columns.get(OURS)
        samples = column.samples
        tenths = statistics.quantiles(samples, n=10) if len(samples) > 1 else samples
        found = {"median": column.median, "low": tenths[0], "high": tenths[-1], "samples": len(samples),
                 "ratio": column.ratio_to(ours) if ours else None}
        if column.usual:
            found |= {"worst": max(samples), "usual": statistics.median(column.usual)}
        return found


class Runner:
    """Runs workloads over peers; what a reader should know beside the figures is in `notes`."""

    def __init__(self, pythons: dict[str, str], seconds: float, limit: float, progress: Callable[[str], None]):
        self.pythons, self.seconds, self.limit, self.progress = pythons, seconds, limit, progress
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.notes: list[str] = []
        self.workers: dict[str, Worker] = {}

    def run(self, wanted: list[tuple[Workload, list[str]]], threads: int) -> Iterator[dict]:
        """A row for each workload with at least one of the peers wanted for it, as soon as it is measured."""
        with tempfile.TemporaryDirectory(prefix="graphc-benchmarks-", ignore_cleanup_errors=True) as folder:
            try:
                for workload, peers in wanted:
                    self._start(peers, threads, Path(folder))
                    result = Result(workload, threads)
                    self._measure(result, [peer for peer in peers if peer in self.workers])
                    yield result.row()
            finally:
                for worker in self.workers.values():
                    worker.stop()
                self.workers = {}

    def _start(self, peers: list[str], threads: int, folder: Path) -> None:
        """Start those of the peers that have no live process, unless they could not be started before."""
        for peer in peers:
            if peer in self.absent or (peer in self.workers and self.workers[peer].alive):
                continue
            self.progress(f"starting {peer}")
            try:
                self.workers[peer] = Worker(peer, self.pythons.get(peer, sys.executable), threads, folder)
                self.versions[peer] = self.workers[peer].version
            except (WorkerError, OSError) as error:
                self.workers.pop(peer, None)
                self.absent[peer] = str(error)

    def _measure(self, result: Result, peers: list[str]) -> None:
        workload = result.workload
        new_batch = workload.name == "new_batch"
        ready = {}
        for peer in peers:
            self.progress(f"{workload.name}: building with {peer}")
            reply = self._ask(peer, result, self.limit, do="build", workload=workload.name)
            check = self._ask(peer, result, self.limit, do="check") if reply else None
            if reply and check:
                result.build[peer] = reply["seconds"]
                result.check[peer] = check["fingerprint"]
                ready[peer] = ["" if new_batch else way for way in reply["ways"]]
        for turn in range(3 if new_batch else max(3, round(self.seconds / SLICE))):
            self.progress(f"{workload.name}: round {turn + 1}")
            order = list(ready)
            shift = turn % max(len(order), 1)       # nobody always comes after the same one
            for peer in order[shift:] + order[:shift]:
                for way in dict.fromkeys(ready.get(peer, [])):
                    self._slice(result, peer, way, ready)

    def _slice(self, result: Result, peer: str, way: str, ready: dict[str, list[str]]) -> None:
        """One peer's turn; a peer that fails loses the row, so that half a measurement is not shown as a whole one."""
        if result.workload.name == "new_batch":
            reply = self._ask(peer, result, PATIENCE, do="new_sizes", count=NEW_SIZES)
        else:
            reply = self._ask(peer, result, PATIENCE, do="time", way=way, seconds=min(SLICE, self.seconds))
        if reply is None:
            ready.pop(peer, None)
            for name in [name for name in result.columns if name.split()[0] == peer]:
                del result.columns[name]
            return
        column = result.columns.setdefault(f"{peer} {way}".strip(), Column())
        column.rounds.append(reply["seconds"])
        column.usual += reply.get("usual", [])
        idle = self.workers[peer].idle_cpu
        if len(column.rounds) > 1 and idle > IDLE_AT_MOST:
            note = f"{peer} kept a processor busy while others were timed ({result.workload.name})"
            if note not in self.notes:
                self.notes.append(note)

    def _ask(self, peer: str, result: Result, patience: float, **request) -> dict | None:
        """A reply, or None, and why in the result."""
        try:
            return self.workers[peer].request(patience, **request)
        except WorkerUnsupported as error:
            result.missing[peer] = ("unsupported", str(error))
        except WorkerSlow as error:
            building = request["do"] in ("build", "check")
            result.missing[peer] = ("limit", f"> {patience:.0f} s") if building else ("failed", str(error))
        except WorkerError as error:
            result.missing[peer] = ("failed", str(error))
        return None
