"""The benchmarks measure what they say: the workloads' numbers, the protocol with a worker, the tables, what is kept."""
import json
import platform
import sys

import numpy as np
import pytest

from benchmarks import machine, peers, plots, startup, table
from benchmarks.__main__ import chosen, counts_of, interpreters, main
from benchmarks.data import SAMPLES, disagreement, feed_types, feeds, fingerprint, initial_weights, new_batch_feeds
from benchmarks.peers import numpy_hand
from benchmarks.results import Results, best_peer
from benchmarks.runner import Column, Result, Runner, Worker, WorkerError, WorkerSlow
from benchmarks.workloads import CHECK_STEPS, FEED_SETS, WORKLOADS

SMALL = [workload for workload in WORKLOADS.values() if workload.group != "memory"]


# ---- workloads

@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.name)
def test_feeds_are_the_same_for_everybody(workload):
    first, second = feeds(workload, np.int32), feeds(workload, np.int64)
    assert len(first) == FEED_SETS
    for ours, theirs in zip(first, second, strict=True):
        assert [(str(array.dtype), array.shape) for array in ours] == feed_types(workload)
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a, b)
            assert a.ctypes.data % 64 == 0
    assert not np.array_equal(first[0][0], first[1][0])


def test_weights_are_uniform_within_the_fan_in():
    shapes = [(784, 128), (128,), (128, 10), (10,)]
    for weight, shape, fan_in in zip(initial_weights(WORKLOADS["mlp128_train_b32"]), shapes, (784, 784, 128, 128),
                                     strict=True):
        assert weight.shape == shape
        assert weight.dtype == np.float32
        assert 0.7 / np.sqrt(fan_in) < np.abs(weight).max() <= 1 / np.sqrt(fan_in)


def test_new_batch_never_repeats_a_size():
    sizes = [len(x) for (x,) in new_batch_feeds()]
    assert len(set(sizes)) == len(sizes) > 300
    assert WORKLOADS["new_batch"].batch not in sizes


def test_arithmetic_is_counted():
    assert WORKLOADS["product_512"].flops == 2 * 512**3
    assert WORKLOADS["mlp128_infer_b1"].flops == 2 * (784 * 128 + 128 * 10)
    # forward; then both operands' gradients of the second product, and the first one's by its weights
    assert WORKLOADS["mlp10_train"].flops == 2 * 32 * (2 * 784 * 10 + 3 * 10 * 10)
    assert WORKLOADS["lenet_infer_b1"].flops == 2 * (24 * 24 * 10 * 25 + 8 * 8 * 20 * 250 + 320 * 50 + 500)


def test_memory_is_counted():
    weights = 784 * 10 + 10 + 10 * 10 + 10
    workload = WORKLOADS["mlp10_train"]         # Adam reads and writes the weights and two means
    assert (workload.reads, workload.writes) == (4 * (3 * weights + 32 * 784), 4 * 3 * weights)
    for workload in WORKLOADS.values():
        if workload.reads and workload.net not in ("gelu", "gelu_grad", "loop"):
            held = sum(weight.size for weight in initial_weights(workload))
            assert workload.reads >= 4 * held + 4 * int(np.prod(feed_types(workload)[0][1])), workload.name


FACTS = {"cpu": "a CPU", "threads": 2, "vectors": "AVX2", "peak_flops": 1e11, "step_seconds": 1e-9, "reason": None,
         "call_seconds": 1e-6, "copy_bytes_1": 1e10, "copy_bytes": 2e10,
         "bandwidths": [{"bytes": 2**15, "copy": 2e11, "read": 2e11}, {"bytes": 2**20, "copy": 1e11, "read": 1.5e11},
                        {"bytes": 2**27, "copy": 1.5e10, "read": 2e10}]}


def test_floor_is_the_largest_bound():
    assert machine.floor(WORKLOADS["mm_gelu_1024"], FACTS) == 2 * 1024**3 / 2e11
    assert machine.floor(WORKLOADS["gelu_fwd"], FACTS) == 2**27 / 2e10          # NumPy's copy is the faster one
    assert machine.floor(WORKLOADS["loop_100k"], FACTS) == pytest.approx(2e-4)
    assert machine.floor(WORKLOADS["small_call"], FACTS) == 1e-6
    held = WORKLOADS["mlp128_infer_b1"]         # reads more than it writes, from what holds a megabyte
    assert 2**20 < held.footprint < 2**27 or held.footprint < 2**20
    expected = max(2 * held.writes / 2e11 + (held.reads - held.writes) / 2e11, held.flops / 2e11, 1e-6)
    assert machine.floor(held, FACTS) == pytest.approx(expected)
    assert machine.floor(WORKLOADS["new_batch"], FACTS) is None
    assert machine.floor(held, {**FACTS, "peak_flops": None}) is None


def test_better_limits_are_kept():
    other = {**FACTS, "peak_flops": 2e11, "call_seconds": 2e-6, "copy_bytes": 1.0}
    best = machine.better(FACTS, other)
    assert (best["peak_flops"], best["call_seconds"], best["copy_bytes"]) == (2e11, 1e-6, 2e10)
    fresh = {"bytes": 2**22, "copy": 1e10, "read": 1e10}
    other["bandwidths"] = [{"bytes": 2**20, "copy": 2e11, "read": 1e11}, fresh]
    assert machine.better(FACTS, other)["bandwidths"] == [{"bytes": 2**20, "copy": 2e11, "read": 1.5e11}, fresh]


@pytest.mark.parametrize("peer", peers.PEERS)
def test_every_peer_has_code_for_every_workload_that_it_can_do(peer):
    module = peers.load(peer)
    kinds = {workload.kind for workload in WORKLOADS.values()}
    trained = {kind for kind in kinds if kind.endswith("_train")}
    nets = {f"{net}_{what}" for net in ("lenet", "separable", "lstm", "gru") for what in ("train", "infer")}
    # What nobody would write in a peer, or what it takes minutes to compile there.
    left_out = {"numpy": trained - {"linear_train", "mlp_train"} | {"loop"}, "pytensor": nets, "torch": {"loop"},
                "torch_compile": {"loop"}, "tinygrad": {"loop"}, "onnxruntime": trained | {"gelu_grad"},
                "numba": kinds - {"loop"}}
    assert kinds - set(module.BUILDERS) == left_out.get(peer, set())
    assert module.LABELS in (np.int32, np.int64)


# ---- agreement

def test_agreement():
    def of(value):
        return fingerprint(np.array(value))

    assert disagreement({"a": of(1.0), "b": of(1.0005)}) is None
    assert "b 1.1" in disagreement({"a": of(1.0), "b": of(1.1), "c": of(1.0)})
    assert disagreement({"a": of(1.0), "b": of(float("nan"))}) == "not finite: b"
    assert "different shapes" in disagreement({"a": of(1.0), "b": of([1.0, 2.0])})
    # each of several results counts by its own size
    small = {"a": fingerprint([np.ones(3), np.array(1e-8)]), "b": fingerprint([np.ones(3), np.array(1.01e-8)])}
    assert "result 1" in disagreement(small)


def test_fingerprint_sees_a_transposed_result():
    result = np.random.default_rng(0).normal(size=(32, 32))
    assert disagreement({"a": fingerprint(result), "b": fingerprint(result.T)})
    assert disagreement({"a": fingerprint(result), "b": fingerprint(result.copy())}) is None
    assert len(fingerprint(result)[0]) == SAMPLES + 1


# ---- the protocol

def numpy_loss(name):
    """The loss of the last step that is compared."""
    workload = WORKLOADS[name]
    step, batches = numpy_hand.BUILDERS[workload.kind](workload, initial_weights(workload)), feeds(workload, np.int64)
    return [step(*batches[i % len(batches)]) for i in range(CHECK_STEPS)][-1]


@pytest.fixture
def worker(tmp_path):
    started = Worker("numpy", sys.executable, 1, tmp_path)
    yield started
    started.stop()


def test_worker_builds_checks_and_times(worker):
    assert worker.version.startswith("NumPy ")
    assert worker.request(do="build", workload="linreg_train")["ways"] == [""]
    ((_, loss),) = worker.request(do="check")["fingerprint"]
    assert loss == pytest.approx(numpy_loss("linreg_train"))
    samples = worker.request(do="time", way="", seconds=0.02)["seconds"]
    assert len(samples) >= 1
    assert all(0 < sample < 1 for sample in samples)


def test_worker_times_new_batch_sizes(worker):
    worker.request(do="build", workload="new_batch")
    reply = worker.request(do="new_sizes", count=3)
    assert len(reply["seconds"]) == len(reply["usual"]) == 3


def test_worker_survives_a_bad_request(worker):
    with pytest.raises(WorkerError, match="KeyError: 'no_such_workload'"):
        worker.request(do="build", workload="no_such_workload")
    assert worker.request(do="build", workload="small_call")["seconds"] > 0


def test_a_worker_that_dies_is_reported(worker):
    worker.process.kill()
    with pytest.raises(WorkerError, match="its process ended with exit code"):
        worker.request(do="build", workload="small_call")


def test_a_worker_that_hangs_is_ended(worker):
    worker.request(do="build", workload="small_call")
    with pytest.raises(WorkerSlow, match="no answer to 'time' in 0 s, ended"):
        worker.request(patience=0.05, do="time", way="", seconds=2)
    worker.process.wait(timeout=5)


def runner(pythons=None, limit=60):
    return Runner(pythons or {}, 0.05, limit, progress=lambda text: None)


def test_runner_says_what_it_could_not_start():
    started = runner({"torch": "no-such-python"})
    (row,) = started.run([(WORKLOADS["small_call"], ["numpy", "torch"])], threads=1)
    assert list(row["seconds"]) == ["numpy"]
    assert row["seconds"]["numpy"]["samples"] >= 3
    assert "no-such-python" in started.absent["torch"]
    assert row["missing"] == {}


def test_a_peer_that_builds_too_long_loses_that_row_only():
    started = runner(limit=0.001)
    rows = started.run([(WORKLOADS[name], ["numpy"]) for name in ("small_call", "linreg_train")], threads=1)
    first = next(rows)
    assert first["missing"] == {"numpy": ["limit", "> 0 s"]}
    assert first["seconds"] == {}
    started.limit = 60
    second = next(rows)
    assert list(second["seconds"]) == ["numpy"]
    rows.close()
    assert started.workers == {}


def test_a_peer_without_code_is_named():
    (row,) = runner().run([(WORKLOADS["small_call"], ["numba"])], threads=1)
    assert row["missing"] == {"numba": ["unsupported", "no code for dot"]}


# ---- what is kept

def column(median, ratio=None):
    return {"median": median, "low": median, "high": median, "samples": 9, "ratio": ratio}


def row_of(name, threads, seconds, **other):
    workload = WORKLOADS[name]
    return {"workload": name, "doc": workload.doc, "group": workload.group, "threads": threads, "seconds": seconds, "build": {},
            "check": {}, "missing": {}, "disagreement": None, **other}


def test_results_are_taken_up_where_they_were_left(tmp_path):
    path = tmp_path / "results.json"
    results, workload = Results(path), WORKLOADS["linreg_train"]
    peers = ["graphc", "numpy", "torch", "jax", "onnxruntime"]
    assert results.pending(workload, 2, peers) == peers
    results.add(row_of("linreg_train", 2, {"graphc": column(1e-3), "numpy": column(2e-3, 2.0)},
                       missing={"torch": ["failed", "x"], "jax": ["limit", "> 5 s"], "onnxruntime": ["unsupported", "y"]}))
    results = Results(path)
    assert results.pending(workload, 2, peers) == ["graphc", "torch"]      # graphc, to compare with
    assert results.pending(workload, 2, ["graphc", "numpy", "jax"]) == []
    assert results.pending(workload, 2, ["jax"], again=True) == ["jax"]
    assert results.pending(workload, 1, ["numpy"]) == ["numpy"]
    assert results.failures == ["linreg_train: torch failed, x"]

    results.add(row_of("linreg_train", 2, {"graphc": column(5e-3), "torch": column(9e-3, 1.8)}))
    row = Results(path).row("linreg_train", 2)
    assert row["seconds"]["graphc"]["median"] == 1e-3                       # the first figure stays
    assert list(row["seconds"]) == ["graphc", "numpy", "torch"]
    assert set(row["missing"]) == {"jax", "onnxruntime"}
    assert results.failures == []
    results.add(row_of("linreg_train", 2, {"graphc": column(5e-3)}), again=True)
    assert results.row("linreg_train", 2)["seconds"]["graphc"]["median"] == 5e-3


def test_later_peers_are_checked_against_earlier_ones(tmp_path):
    results = Results(tmp_path / "results.json")
    results.add(row_of("linreg_train", 2, {}, check={"graphc": fingerprint(1.0)}))
    results.add(row_of("linreg_train", 2, {}, check={"torch": fingerprint(1.1)}))
    assert "torch 1.1" in results.failures[0]


def test_curves_ask_quick_peers_only():
    assert Results().pending(WORKLOADS["mlp64_train_b32"], 2, ["graphc", "torch", "torch_compile"]) == ["graphc", "torch"]


def test_another_file_is_not_written_over(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"something": "else"}')
    with pytest.raises(SystemExit, match="not a file of these benchmarks"):
        Results(path)


# ---- the tables

def example():
    results = Results()
    results.add_machine(FACTS)
    results.add_machine({**FACTS, "threads": 1})
    result = Result(WORKLOADS["product_512"], 1)
    result.columns = {"graphc": Column([[2e-3, 2e-3], [4e-3, 4e-3]]), "numpy": Column([[3e-3], [6e-3]]),
                      "jax": Column([[0.1], [0.2]])}
    result.build = {"graphc": 0.5, "numpy": 0.001}
    result.missing = {"torch_compile": ("limit", "> 60 s")}
    results.add(result.row())
    results.add(row_of("linreg_train", 1, {"graphc": column(2e-5), "numpy": column(1e-5, 0.5)}))
    return results


def test_times_table():
    assert table.times(example().rows, markdown=False).splitlines() == [
        "milliseconds  graphc            numpy        jax",
        "------------  ------  ---------------  ---------",
        "linreg_train  0.0200  *0.0100* (x0.5)          -",
        "product_512     3.00    *4.50* (x1.5)  150 (x50)",
    ]


def test_floors_table():
    results = example()
    lines = table.floors(results, results.rows, markdown=False).splitlines()
    assert lines[0].split() == ["milliseconds", "graphc", "best", "peer", "its", "time", "faster", "must", "dream", "floor",
                                "graphc", "/", "floor", "peer", "/", "floor"]
    assert lines[2].split() == ["linreg_train", "0.0200", "numpy", "0.0100", "*x0.5", "1.2", "2", "0.00100", "20.0", "10.0"]
    assert lines[3].split() == ["product_512", "3.00", "numpy", "4.50", "x1.5", "2.68", "1.12", "1.68"]


def test_builds_table_tells_what_took_too_long():
    lines = table.builds(example().rows, markdown=True).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == 5
    assert set(lines[1]) == set("|-: ")
    assert len({len(line) for line in lines}) == 1
    assert "> 60 |" in lines[3]


def test_ratio_is_taken_round_by_round():
    assert example().row("product_512", 1)["seconds"]["numpy"]["ratio"] == pytest.approx(1.5)


def test_plain_numba_is_no_peer_to_be_best():
    assert best_peer({"seconds": {"graphc": column(1), "numba": column(1, 1.0), "jax": column(3, 3.0)}}) == "jax"
    assert best_peer({"seconds": {"graphc": column(1)}}) is None


def test_startup_table():
    results = Results()
    results.data["startup"] = {"graphc": {"cold": 1.5, "warm": 0.25, "installed": 2e8, "workload": "lenet_train_b64"},
                               "torch_compile": {"cold": "> 60", "import": 1.5}}
    text = table.startup(results, markdown=False)
    assert "> 60" in text
    assert "installed, MB" in text and "200" in text


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0.00"), (0.00672, "0.00672"), (0.0999, "0.0999"), (0.551, "0.551"), (1.25, "1.25"), (47.84, "47.8"),
    (302.4, "302"), (1208.0, "1208"), (9.999, "10.0"),
])
def test_number(value, text):
    assert table.number(value) == text


# ---- plots and starting

def test_plots_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    results = Results()
    for threads in (1, 2):
        results.add_machine({**FACTS, "threads": threads})
        for workload in WORKLOADS.values():
            if (workload.threads or threads) == threads:
                results.add(row_of(workload.name, threads, {"graphc": column(2e-3 / threads), "numpy": column(3e-3, 1.5)}))
    written = {path.name: path.read_text() for path in plots.draw(results, tmp_path)}
    assert set(written) == {f"performance-{name}.svg" for name in ("floors", "batch", "threads", "width")}
    for text in written.values():
        assert text.startswith("<?xml") and "graphc" in text
        assert len(text) < 100_000
    assert "lenet_train_b64" in written["performance-floors.svg"]
    assert plots.draw(Results(), tmp_path) == []


def test_starting_is_measured():
    found = startup.measure("numpy", sys.executable, 1, limit=60)
    assert found["workload"] == "lenet_infer_b64"
    assert 0 < found["cold"] < found["warm"] < 60
    assert found["resident_beyond"] <= found["resident"]
    assert found["installed"] > 1e7


# ---- the command

def test_command_keeps_data_and_goes_on(capsys, tmp_path):
    path = tmp_path / "results.json"
    arguments = ["--peers", "numpy", "--seconds", "0.05", "--threads", "1", "--json", str(path)]
    assert main([*arguments, "--only", "linreg_train"]) == 0
    kept = json.loads(path.read_text())["rows"]["linreg_train 1"]
    assert main([*arguments, "--only", "linreg_train,small*"]) == 0
    data = json.loads(path.read_text())
    assert data["rows"]["linreg_train 1"] == kept
    assert data["rows"]["small_call 1"]["seconds"]["numpy"]["median"] > 0
    assert data["machine"]["1"]["copy_bytes"] > 1e8
    assert data["versions"]["numpy"].startswith("NumPy ")
    assert "small_call" in capsys.readouterr().out


def test_curves_are_drawn_with_the_most_threads():
    assert counts_of(WORKLOADS["linreg_train"], [2, 1]) == [2, 1]
    assert counts_of(WORKLOADS["mlp64_train_b32"], [2, 1]) == [2]
    assert counts_of(WORKLOADS["loop_100k"], [2]) == [1]


def test_choosing():
    assert chosen("mlp128_infer*", WORKLOADS, "workload") == ["mlp128_infer_b1", "mlp128_infer_b512"]
    groups = {workload.name: workload.group for workload in WORKLOADS.values()}
    assert chosen("memory,small*", WORKLOADS, "workload", groups) == ["small_call", "gelu_fwd", "gelu_grad", "softmax_rows"]
    with pytest.raises(SystemExit, match="no workload matches 'nothing'"):
        chosen("nothing", WORKLOADS, "workload")
    found = interpreters([sys.executable])
    assert "graphc" not in found
    assert set(found) == set(peers.PEERS) - {"graphc"}
    assert set(interpreters([f"torch*={sys.executable}"])) == {"torch", "torch_compile"}
    with pytest.raises(SystemExit, match="there is no program 'no-such-python'"):
        interpreters(["torch=no-such-python"])


def test_header_does_not_name_the_host():
    facts = {**FACTS, "cpu": machine.cpu_name()}
    text = machine.sentence(facts)
    assert text.endswith("AVX2, 2 threads, copy 20.0 GB/s (one thread 10.0), multiply-add peak 100 GFLOP/s a core")
    assert "Core Processor" not in text
    assert not platform.node() or platform.node() not in text
