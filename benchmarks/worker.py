"""One peer in a process of its own: `python -m benchmarks.worker PEER`, driven line by line by the runner.

Each request is a line of JSON on standard input, each reply a line of JSON on standard output:

    {"do": "start", "threads": 2}                   {"version": ..., "python": ...}
    {"do": "build", "workload": "mlp10_train"}      {"seconds": ..., "ways": ["", "Session.run"]}
    {"do": "check"}                                 {"fingerprint": [...]}          the loss after 20 steps
    {"do": "time", "way": "", "seconds": 0.2}       {"seconds": [...]}              one figure per call
    {"do": "new_sizes", "count": 10}                {"seconds": [...], "usual": [...]}
    {"do": "quit"}                                  the process ends

A request that cannot be met is answered with {"unsupported": "why"} or {"error": "what went wrong"}.  Between requests
the process sleeps in a read, so that only one worker runs at a time.  What a system prints goes to standard error.
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
from benchmarks.workloads import CHECK_STEPS, WORKLOADS, feeds, fingerprint, initial_weights, new_batch_feeds

SAMPLE_SECONDS = 50e-6      # shorter calls are timed several at once, so that reading the clock does not count
SAMPLES_AT_MOST = 2000      # per reply


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
        self.first = _value(self.ways[""](*self.feeds[0]))
        seconds = time.perf_counter() - began
        self.workload = chosen
        self.unseen = new_batch_feeds()
        return {"seconds": seconds, "ways": list(self.ways)}

    def check(self) -> dict:
        """What the peer computes: for training the loss of step 20, building's own call being the first step."""
        result = self.first
        if self.workload.trains:
            for step in range(1, CHECK_STEPS):
                result = _value(self.ways[""](*self.feeds[step % len(self.feeds)]))
        found = fingerprint(self.workload, result)
        self.first = None       # it may be large
        return {"fingerprint": found}

    def time(self, way: str, seconds: float) -> dict:
        """Seconds per call, over and over for so many seconds, cycling through the feeds."""
        call, feeds = self.ways[way], self.feeds
        usual = min(_timed(call, feeds[i % len(feeds)]) for i in range(3))
        cycles = max(1, round(SAMPLE_SECONDS / (usual * len(feeds))))
        group = feeds * cycles if usual < SAMPLE_SECONDS / 2 else None
        samples, clock = [], time.perf_counter
        end = clock() + seconds
        while (clock() < end or len(samples) < 3) and len(samples) < SAMPLES_AT_MOST:
            if group is None:
                samples.append(_timed(call, feeds[len(samples) % len(feeds)]))
            else:
                began = clock()
                for feed in group:
                    call(*feed)
                samples.append((clock() - began) / len(group))
        return {"seconds": samples}

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
    call(*feed)     # the result is dropped at once, as a loop that needs no more of it would
    return time.perf_counter() - began


def _value(result):
    """A call may return the loss alone, or a list of which it is the first."""
    return result[0] if isinstance(result, (list, tuple)) else result


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


def main() -> None:
    # Replies get a descriptor of their own: native libraries print to 1 as they like.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "quit":
            break
        replies.write(json.dumps(answer(worker, request)) + "\n")
        replies.flush()
    replies.flush()
    os._exit(0)     # some systems' threads make an ordinary exit take seconds


if __name__ == "__main__":
    main()
