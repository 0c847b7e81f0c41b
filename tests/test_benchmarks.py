"""The benchmarks measure what they say: the workloads' numbers, the protocol with a worker, the tables."""
import json
import platform
import sys

import numpy as np
import pytest

from benchmarks import machine, peers, table
from benchmarks.__main__ import chosen, interpreters, main
from benchmarks.peers import numpy_hand
from benchmarks.runner import Column, Result, Runner, Worker, WorkerError
from benchmarks.workloads import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    ADAM_RATE,
    CHECK_STEPS,
    SGD_RATE,
    WORKLOADS,
    disagreement,
    feeds,
    fingerprint,
    initial_weights,
    new_batch_feeds,
)

SMALL = [workload for workload in WORKLOADS.values() if workload.kind != "gelu"]


# ---- workloads

@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.name)
def test_feeds_are_the_same_for_everybody(workload):
    first, second = feeds(workload, np.int32), feeds(workload, np.int64)
    assert len(first) == 8
    for ours, theirs in zip(first, second, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a, b)
            assert a.ctypes.data % 64 == 0
            assert a.dtype in (np.float32, np.int32)
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


NETS = {"lenet_train", "lenet_infer", "lstm_train", "lstm_infer"}
# What nobody would write in a peer, or what it takes minutes to compile there.
LEFT_OUT = {"numpy": NETS | {"loop"}, "pytensor": NETS | {"loop"}, "torch": {"loop"}, "torch_compile": {"loop"},
            "numba": {workload.kind for workload in WORKLOADS.values()} - {"loop"}}


@pytest.mark.parametrize("peer", peers.PEERS)
def test_every_peer_has_code_for_every_workload(peer):
    module = peers.load(peer)
    assert {workload.kind for workload in WORKLOADS.values()} - set(module.BUILDERS) == LEFT_OUT.get(peer, set())
    assert module.LABELS in (np.int32, np.int64)


# ---- the hand-written steps, against the same mathematics written plainly in float64

def plain_losses(workload):
    """The losses of the first steps, with gradients by the textbook and no care for speed."""
    weights = [weight.astype(np.float64) for weight in initial_weights(workload)]
    means, squares = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    batches = feeds(workload)
    for step in range(1, CHECK_STEPS + 1):
        x, y = (array.astype(np.float64) for array in batches[(step - 1) % len(batches)])
        loss, gradients = (plain_mlp if workload.kind == "mlp_train" else plain_linear)(workload, weights, x, y)
        for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
            if workload.kind != "mlp_train":
                weight -= SGD_RATE * gradient
                continue
            mean += (1 - ADAM_BETA1) * (gradient - mean)
            square += (1 - ADAM_BETA2) * (gradient**2 - square)
            rate = ADAM_RATE * np.sqrt(1 - ADAM_BETA2**step) / (1 - ADAM_BETA1**step)
            weight -= rate * mean / (np.sqrt(square) + ADAM_EPSILON)
        yield loss


def plain_linear(workload, weights, x, y):
    z = x @ weights[0] + weights[1]
    if workload.kind == "linreg_train":
        loss, slope = np.mean((z - y) ** 2), 2 * (z - y) / len(x)
    else:
        p = 1 / (1 + np.exp(-z))
        loss, slope = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), (p - y) / len(x)
    return loss, [x.T @ slope, slope.sum(axis=0)]


def plain_mlp(workload, weights, x, y):
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1 + b1, 0)
    p = np.exp(hidden @ w2 + b2)
    p /= p.sum(axis=1, keepdims=True)
    right = np.eye(p.shape[1])[y.astype(int)]
    slope = (p - right) / len(x)
    back = (slope @ w2.T) * (hidden > 0)
    return -np.mean(np.log((p * right).sum(axis=1))), [x.T @ back, back.sum(0), hidden.T @ slope, slope.sum(0)]


@pytest.mark.parametrize("name", ["linreg_train", "logreg_train", "mlp10_train", "mlp128_train_b32"])
def test_numpy_by_hand_is_right(name):
    workload = WORKLOADS[name]
    step = numpy_hand.BUILDERS[workload.kind](workload, initial_weights(workload))
    batches = feeds(workload, numpy_hand.LABELS)
    losses = [step(*batches[i % len(batches)]) for i in range(CHECK_STEPS)]
    assert np.allclose(losses, list(plain_losses(workload)), rtol=1e-5)
    assert losses[-1] < losses[0]


def test_numpy_by_hand_gelu_is_right_and_leaves_its_input_alone():
    x = np.linspace(-6, 6, 100_001, dtype=np.float32)
    before = x.copy()
    weights = initial_weights(WORKLOADS["gelu_fwd"])
    a, b, c = (float(weight) for weight in weights)
    workload = type(WORKLOADS["gelu_fwd"])("gelu", "gelu", "", x.shape)
    got = numpy_hand.gelu(workload, weights)(x)
    u = x.astype(np.float64) * a + b
    want = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))) * c + x
    assert np.allclose(got, want, atol=2e-6)
    assert np.array_equal(x, before)


# ---- agreement

def test_agreement():
    assert disagreement({"a": [1.0], "b": [1.0005]}) is None
    assert "b 1.1" in disagreement({"a": [1.0], "b": [1.1], "c": [1.0]})
    assert disagreement({"a": [1.0], "b": [float("nan")]}) == "not finite: b"
    assert "different shapes" in disagreement({"a": [1.0], "b": [1.0, 2.0]})


def test_fingerprint_sees_a_transposed_result():
    result = np.random.default_rng(0).normal(size=(32, 32))
    product = WORKLOADS["product_512"]
    assert disagreement({"a": fingerprint(product, result), "b": fingerprint(product, result.T)})
    assert disagreement({"a": fingerprint(product, result), "b": fingerprint(product, result.copy())}) is None


# ---- the protocol

@pytest.fixture
def worker(tmp_path):
    started = Worker("numpy", sys.executable, 1, tmp_path)
    yield started
    started.stop()


def test_worker_builds_checks_and_times(worker):
    assert worker.version.startswith("NumPy ")
    assert worker.request(do="build", workload="linreg_train")["ways"] == [""]
    loss = worker.request(do="check")["fingerprint"]
    assert np.allclose(loss, list(plain_losses(WORKLOADS["linreg_train"]))[-1], rtol=1e-5)
    samples = worker.request(do="time", way="", seconds=0.02)["seconds"]
    assert len(samples) >= 3
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
    with pytest.raises(WorkerError, match="no answer to 'time' in 0 s, ended"):
        worker.request(patience=0.05, do="time", way="", seconds=2)
    worker.process.wait(timeout=5)


def test_runner_says_what_it_could_not_start():
    runner = Runner(["numpy", "torch"], {"torch": "no-such-python"}, 0.05, progress=lambda text: None)
    (result,) = runner.run([WORKLOADS["small_call"]], threads=1)
    assert list(result.columns) == ["numpy"]
    assert len(result.columns["numpy"].rounds) == 3
    assert "no-such-python" in runner.absent["torch"]
    assert runner.failures == []


# ---- the tables

def example():
    result = Result(WORKLOADS["product_512"], 1)
    result.columns = {"graphc": Column([[2e-3, 2e-3], [4e-3, 4e-3]]), "numpy": Column([[3e-3], [6e-3]]),
                      "jax": Column([[0.1], [0.2]])}
    result.build_seconds = {"graphc": 0.5, "numpy": 0.001}
    other = Result(WORKLOADS["linreg_train"], 2)
    other.columns = {"numpy": Column([[7e-6]])}
    return [result, other]


def test_times_table():
    assert table.times(example(), markdown=False).splitlines() == [
        "milliseconds  graphc         numpy        jax",
        "------------  ------  ------------  ---------",
        "product_512     3.00  *4.50 (x1.5)  150 (x50)",
        "linreg_train       -      *0.00700          -",
    ]


def test_markdown_table_has_a_rule_of_the_same_width():
    lines = table.builds(example(), markdown=True).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == 4
    assert set(lines[1]) == set("|-: ")
    assert len({len(line) for line in lines}) == 1


def test_ratio_is_taken_round_by_round():
    result = example()[0]
    assert result.columns["numpy"].ratio_to(result.columns["graphc"]) == pytest.approx(1.5)


def test_rates_are_compared_with_the_limit_of_the_threads_used():
    text = table.rates(example(), {"peak_flops": 2 * 2 * 512**3 / 3e-3, "copy_bytes": 1, "copy_bytes_1": 1}, False)
    assert "product_512, GFLOP/s" in text
    assert "89 (50 %)" in text


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0.00"), (0.00672, "0.00672"), (0.0999, "0.0999"), (0.551, "0.551"), (1.25, "1.25"), (47.84, "47.8"),
    (302.4, "302"), (1208.0, "1208"), (9.999, "10.0"),
])
def test_number(value, text):
    assert table.number(value) == text


# ---- the command

def test_command_prints_data(capsys):
    arguments = ["--peers", "numpy", "--workload", "linreg_train,small*", "--seconds", "0.05", "--threads", "1"]
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["workload"] for row in data["results"]] == ["linreg_train", "small_call"]
    assert data["machine"]["copy_bytes"] > 1e8
    assert data["results"][0]["seconds"]["numpy"]["median"] > 0


def test_choosing():
    assert chosen("mlp128_infer*", WORKLOADS, "workload") == ["mlp128_infer_b1", "mlp128_infer_b512"]
    with pytest.raises(SystemExit, match="no workload matches 'nothing'"):
        chosen("nothing", WORKLOADS, "workload")
    found = interpreters([sys.executable])
    assert "graphc" not in found
    assert set(found) == set(peers.PEERS) - {"graphc"}
    assert set(interpreters([f"torch*={sys.executable}"])) == {"torch", "torch_compile"}
    with pytest.raises(SystemExit, match="there is no program 'no-such-python'"):
        interpreters(["torch=no-such-python"])


def test_header_does_not_name_the_host():
    facts = {"cpu": machine.cpu_name(), "threads": 2, "vectors": "AVX2", "peak_flops": 1e11, "reason": None,
             "copy_bytes_1": 1e10, "copy_bytes": 2e10}
    text = machine.sentence(facts)
    assert text.endswith("AVX2, 2 threads, copy 20.0 GB/s (one thread 10.0), multiply-add peak 100 GFLOP/s a core")
    assert "Core Processor" not in text
    assert not platform.node() or platform.node() not in text
