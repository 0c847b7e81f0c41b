"""All that was measured: plain data that grows row by row, in a JSON file if wanted, so that a run can be taken up again."""
from __future__ import annotations

import json
import os
from pathlib import Path

from benchmarks import machine
from benchmarks.data import disagreement
from benchmarks.peers import PEERS
from benchmarks.workloads import SERIES, WORKLOADS, Workload

FORMAT = 1
OURS = "graphc"
# Curves are drawn with the peers that compile quickly.
SERIES_PEERS = ("graphc", "numpy", "torch", "jax", "tensorflow", "onnxruntime")


class Results:
    """Rows by workload and number of threads, limits of the machine by number of threads, versions and start-up by peer.

    A row has, by column (a peer, or `graphc Session.run`), `seconds`: median, low and high (tenths), samples, and `ratio`,
    how many times longer a call took than graphc's in the same rounds; and by peer `build` (seconds), `check` (the
    results' fingerprint) and `missing`: (kind, why), the kind being unsupported, limit or failed.
    """

    def __init__(self, path: str | None = None):
        self.path = Path(path) if path else None
        self.data = {"format": FORMAT, "machine": {}, "versions": {}, "absent": {}, "rows": {}, "startup": {}, "notes": []}
        if self.path and self.path.exists():
            data = json.loads(self.path.read_text())
            if data.get("format") != FORMAT:
                raise SystemExit(f"{path} is not a file of these benchmarks, or of another version of them")
            self.data = data

    def save(self) -> None:
        """Write the file in one step, so that an interrupted run leaves the one before it."""
        if self.path:
            beside = self.path.with_name(self.path.name + ".new")
            beside.write_text(json.dumps(self.data, indent=1))
            os.replace(beside, self.path)

    @property
    def rows(self) -> list[dict]:
        """In the order of the workloads, those with more threads first."""
        order = {name: place for place, name in enumerate(WORKLOADS)}
        known = [row for row in self.data["rows"].values() if row["workload"] in order]
        return sorted(known, key=lambda row: (-row["threads"], order[row["workload"]]))

    def row(self, name: str, threads: int) -> dict | None:
        return self.data["rows"].get(f"{name} {threads}")

    def pending(self, workload: Workload, threads: int, peers: list[str], again: bool = False) -> list[str]:
        """The peers that still have to be timed, with graphc before them, which everything is compared with."""
        row = self.row(workload.name, threads)
        wanted = [peer for peer in peers if workload.group not in SERIES or peer in SERIES_PEERS]
        if row is None or again:
            return wanted
        missing = {peer for peer, (kind, _) in row["missing"].items() if kind != "failed"}
        left = [peer for peer in wanted if peer not in row["seconds"] and peer not in missing]
        return [peer for peer in peers if peer in left or peer == OURS] if left else []

    def add(self, row: dict, again: bool = False) -> None:
        """Take in a row: peers that were not there before, and with `again` newer figures of all."""
        key = f"{row['workload']} {row['threads']}"
        known = self.data["rows"].get(key)
        if known is None:
            known = self.data["rows"][key] = row
        else:
            for part in ("seconds", "build", "check"):
                known[part] = {**known[part], **row[part]} if again else {**row[part], **known[part]}
            known["missing"] = {peer: why for peer, why in {**known["missing"], **row["missing"]}.items()
                                if peer not in known["seconds"]}
        for part in ("seconds", "build", "check"):
            known[part] = dict(sorted(known[part].items(), key=lambda item: list(PEERS).index(item[0].split()[0])))
        known["disagreement"] = disagreement(known["check"]) if len(known["check"]) > 1 else None
        self.save()

    def add_machine(self, facts: dict) -> None:
        """Limits are the best ever seen: a busy machine only looks slower."""
        key = str(facts["threads"])
        known = self.data["machine"].get(key)
        self.data["machine"][key] = machine.better(known, facts) if known else facts

    def facts(self, threads: int) -> dict:
        return self.data["machine"][str(threads)]

    def floor(self, row: dict) -> float | None:
        """Seconds that a call of a row's workload takes at least."""
        return machine.floor(WORKLOADS[row["workload"]], self.facts(row["threads"]))

    @property
    def failures(self) -> list[str]:
        """What makes the exit code 1: peers that failed and results that disagree."""
        found = []
        for row in self.rows:
            found += [f"{row['workload']}: {peer} failed, {why}" for peer, (kind, why) in row["missing"].items()
                      if kind == "failed"]
            if row["disagreement"]:
                found.append(f"{row['workload']}: results disagree, {row['disagreement']}")
        return found


def best_peer(row: dict) -> str | None:
    """The column of the fastest of graphc's peers, by the ratio to graphc where there is one.

    Plain Numba is not one of them: it is there to show what a loop costs.
    """
    others = [name for name in row["seconds"] if not name.startswith(OURS) and name != "numba"]
    key = "ratio" if OURS in row["seconds"] else "median"
    return min(others, key=lambda name: row["seconds"][name][key], default=None)
