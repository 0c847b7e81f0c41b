"""One peer in a process of its own: `python -m benchmarks.worker PEER`, driven line by line by the runner.

Each request is a line of JSON on standard input, each reply a line of JSON on standard output:

    {"do": "start", "threads": 2}                   {"version": ..., "python": ...}
    {"do": "build", "workload": "mlp10_train"}      {"seconds": ..., "ways": ["", "Session.run"]}
    {"do": "check"}                                 {"fingerprint": [[...]]}        the loss after 20 steps, or results
    {"do": "time", "way": "", "seconds": 0.2}       {"seconds": [...]}              one figure per call
    {"do": "new_sizes", "count": 10}                {"seconds": [...], "usual": [...]}
    {"do": "quit"}                                  the process ends

Each reply also has "idle_cpu", the seconds of processor time that the process used between the previous reply and this
request: a thread pool that spins while another peer is timed shows there.  A request that cannot be met is answered
with {"unsupported": "why"} or {"error": "what went wrong"}.

A reply is sent once the process's thread pools sleep, and between requests it sleeps in a read, so that only one worker
runs at a time.  What a system prints goes to standard error.
"""
from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable

from benchmarks import peers
from benchmarks.data import feeds, fingerprint, initial_weights, new_batch_feeds
from benchmarks.workloads import CHECK_STEPS, WORKLOADS

SAMPLE_SECONDS = 50e-6      # that one sample takes at least, so that reading the clock does not count
SAMPLES_AT_MOST = 2000      # per reply, about
REST = 0.01                 # seconds of quiet after which the thread pools count as asleep
REST_AT_MOST = 0.5          # for a pool that never sleeps; the runner will say so


class Unsupported(Exception):
    """A peer has no way to do this workload, for a reason that the table's notes give."""


class Worker:
    """Holds one peer and the workload that it built last."""

    def __init__(self, name: str):
        self.peer = peers.load(name)
        self.workload = None
        self.ways: dict[str, Callable] = {}
        self.feeds: list[tuple] = []
        self.unseen = iter(())

    def start(self, threads: int) -> dict:
        self.peer.start(threads)
        return {"version": self.peer.version(), "python": platform.python_version()}

    def build(self, workload: str) -> dict:
        """Build and call once on fresh weights; the time is that of both, which includes compiling."""
        self.workload, self.ways, self.feeds = None, {}, []
        gc.collect()
        chosen = WORKLOADS[workload]
        if chosen.kind not in self.peer.BUILDERS:
            raise Unsupported(f"no code for {chosen.kind}")
        weights, self.feeds = initial_weights(chosen), feeds(chosen, self.peer.LABELS)
        began = time.perf_counter()
        built = self.peer.BUILDERS[chosen.kind](chosen, weights)
        self.ways = built if isinstance(built, dict) else {"": built}
        self.first = self.ways[""](*self.feeds[0])
        seconds = time.perf_counter() - began
        self.workload = chosen
        self.unseen = new_batch_feeds()
        return {"seconds": seconds, "ways": list(self.ways)}

    def check(self) -> dict:
        """What the peer computes: for training the loss of step 20, building's own call being the first step."""
        result, self.first = self.first, None       # it may be large
        if self.workload.trains:
            for step in range(1, CHECK_STEPS):
                result = self.ways[""](*self.feeds[step % len(self.feeds)])
            if isinstance(result, (list, tuple)):
                result = result[0]                  # the loss comes first
        return {"fingerprint": fingerprint(result)}

    def time(self, way: str, seconds: float) -> dict:
        """Seconds per call, over and over for so many seconds, cycling through the feeds."""
        call, clock = self.ways[way], time.perf_counter
        end = clock() + seconds
        groups = self._groups(call, max(SAMPLE_SECONDS, seconds / SAMPLES_AT_MOST))
        samples = []
        while clock() < end or not samples:
            group = groups[len(samples) % len(groups)]
            began = clock()
            for feed in group:
                call(*feed)         # the result is dropped at once, as a loop that needs no more of it would
            samples.append((clock() - began) / len(group))
        return {"seconds": samples}

    def _groups(self, call: Callable, at_least: float) -> list[list[tuple]]:
        """The feeds of one sample each: single ones, or for short calls so many together that they take `at_least`."""
        usual = _timed(call, self.feeds[0])
        if usual < 10 * at_least:       # looks short: look again when it is warm
            usual = min(_timed(call, feed) for feed in self.feeds * 4)
        if usual > at_least / 2:
            return [[feed] for feed in self.feeds]
        return [self.feeds * max(1, round(at_least / (usual * len(self.feeds))))]

    def new_sizes(self, count: int) -> dict:
        """First calls with batch sizes never seen before, and the usual time of a call with each of them."""
        first, usual = [], []
        for _ in range(count):
            feed = next(self.unseen)
            first.append(_timed(self.ways[""], feed))
            usual.append(statistics.median(_timed(self.ways[""], feed) for _ in range(7)))
        return {"seconds": first, "usual": usual}


def _timed(call: Callable, feed: tuple) -> float:
    began = time.perf_counter()
    call(*feed)
    return time.perf_counter() - began


def answer(worker: Worker, request: dict) -> dict:
    """Do what one request asks, and turn what goes wrong into a reply."""
    arguments = {key: value for key, value in request.items() if key != "do"}
    try:
        return getattr(worker, request["do"])(**arguments)
    except Unsupported as error:
        return {"unsupported": str(error)}
    except (Exception, SystemExit) as error:        # a system may fail in any way; the others go on
        traceback.print_exc()
        # The first line alone: compilers append pages to theirs, and those are in the log.
        return {"error": f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]}


def rest() -> None:
    """Wait until this process uses no processor: OpenBLAS's pool spins for 0.1 s after a call, OpenMP's for less.

    Better than telling pools to sleep at once (OMP_WAIT_POLICY=passive, OPENBLAS_THREAD_TIMEOUT): that makes PyTorch's
    small steps up to 2.7 times slower and NumPy's on a busy machine more.
    """
    give_up = time.perf_counter() + REST_AT_MOST
    while time.perf_counter() < give_up:
        used = time.process_time()
        time.sleep(REST)
        if time.process_time() - used < REST / 10:
            return


def main() -> None:
    # Replies get a descriptor of their own: native libraries print to 1 as they like.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(sys.argv[1])
    replied = time.process_time()
    for line in sys.stdin:
        idle = time.process_time() - replied
        request = json.loads(line)
        if request["do"] == "quit":
            break
        reply = answer(worker, request) | {"idle_cpu": idle}
        rest()
        replies.write(json.dumps(reply) + "\n")
        replied = time.process_time()
        replies.flush()
    os._exit(0)     # some systems' threads make an ordinary exit take seconds


if __name__ == "__main__":
    main()
