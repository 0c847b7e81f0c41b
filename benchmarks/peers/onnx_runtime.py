"""ONNX Runtime, predictions only: the model is built with the `onnx` package's helper, weights inside.

The session optimizes the graph as far as it can; feeds go in as they are, by `run` (its bindings were not faster).
"""
from __future__ import annotations

import itertools

import numpy as np

from benchmarks.data import feed_types
from benchmarks.workloads import LAYER_NORM_EPSILON, LOOP_STEPS, Workload

LABELS = np.int64
onnx = runtime = None
wanted_threads = 1
OPSET = 20              # the first with Gelu
IR_VERSION = 10         # of the file format, which must not be newer than the runtime


def start(threads: int) -> None:
    global onnx, runtime, wanted_threads
    import onnx
    import onnx.helper
    import onnx.numpy_helper
    import onnxruntime as runtime

    wanted_threads = threads


def version() -> str:
    return f"ONNX Runtime {runtime.__version__}"


class Model:
    """A graph that grows node by node; values are known by their names."""

    def __init__(self):
        self.nodes, self.constants, self.names = [], [], (f"v{n}" for n in itertools.count())

    def constant(self, value) -> str:
        name = next(self.names)
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operation: str, *inputs: str, outputs: int = 1, **attributes):
        """The name of its result, or a list of names of `outputs` of them; an empty name is left out."""
        names = [next(self.names) for _ in range(outputs)]
        self.nodes.append(onnx.helper.make_node(operation, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def dense(self, x: str, w: np.ndarray, b: np.ndarray) -> str:
        return self.node("Gemm", x, self.constant(w), self.constant(b))

    def session(self, inputs: list[tuple[str, list]], output: str, rank: int):
        """A session of this graph with float32 `inputs` (name, shape); None is any size."""
        make = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes, "benchmark", [make(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs],
            [make(output, onnx.TensorProto.FLOAT, [None] * rank)], self.constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = wanted_threads, 1
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


# ---- nets: (model, workload, the name of x, weights) to the name of the prediction

def mlp(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for matrix, bias in hidden:
        x = model.node("Relu", model.dense(x, matrix, bias))
    return model.dense(x, w, b)


def lenet(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    f1, b1, f2, b2, *dense = weights
    for filters, bias in ((f1, b1), (f2, b2)):
        x = model.node("Conv", x, model.constant(filters), model.constant(bias))
        x = model.node("MaxPool", model.node("Relu", x), kernel_shape=[2, 2], strides=[2, 2])    # this order is fused
    return mlp(model, workload, model.node("Flatten", x), dense)


def separable(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    first, bias, *parts, w, b = weights
    x = model.node("Relu", model.node("Conv", x, model.constant(first), model.constant(bias), strides=[2, 2]))
    for n in range(0, len(parts), 3):
        depthwise, pointwise, bias = parts[n : n + 3]
        stride, padding = (2, 0) if n == 3 else (1, 1)
        x = model.node("Conv", x, model.constant(depthwise), group=len(depthwise), strides=[stride] * 2, pads=[padding] * 4)
        x = model.node("Relu", model.node("Conv", x, model.constant(pointwise), model.constant(bias)))
    return model.dense(model.node("Flatten", model.node("GlobalAveragePool", x)), w, b)


def last_dense(model: Model, states: str, w: np.ndarray, b: np.ndarray) -> str:
    """The logits from a layer's last state [directions, batch, units]."""
    return model.dense(model.node("Squeeze", states, model.constant(np.array([0]))), w, b)


def lstm(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    """Gates in the order i, o, f, j."""
    *layers, w, b = weights
    units = workload.sizes[2]
    order = np.concatenate([np.arange(units) + units * g for g in (0, 3, 2, 1)])
    x = model.node("Transpose", x, perm=[1, 0, 2])
    for kernel, bias in (layers[:2], layers[2:]):
        kernel = kernel[:, order].T[None]
        both = np.concatenate([bias[order], bias * 0])[None]
        rows, states, _ = model.node("LSTM", x, model.constant(kernel[..., :-units]), model.constant(kernel[..., -units:]),
                                     model.constant(both), outputs=3, hidden_size=units)
        x = model.node("Squeeze", rows, model.constant(np.array([1])))
    return last_dense(model, states, w, b)


def gru(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    """Gates in the order update, reset, new."""
    of_input, of_state, input_bias, state_bias, w, b = weights
    units = workload.sizes[2]
    order = np.concatenate([np.arange(units) + units * g for g in (1, 0, 2)])
    x = model.node("Transpose", x, perm=[1, 0, 2])
    _, states = model.node("GRU", x, model.constant(of_input[:, order].T[None]), model.constant(of_state[:, order].T[None]),
                           model.constant(np.concatenate([input_bias[order], state_bias[order]])[None]), outputs=2,
                           hidden_size=units, linear_before_reset=1)
    return last_dense(model, states, w, b)


def attention(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    places, size, heads = workload.sizes
    inner, bias, outer, outer_bias = weights

    def projected(x: str, w: np.ndarray, b: np.ndarray) -> str:
        return model.node("Add", model.node("MatMul", x, model.constant(w)), model.constant(b))

    parts = model.node("Split", projected(x, inner, bias), outputs=3, axis=2, num_outputs=3)
    split = model.constant(np.array([0, places, heads, size // heads]))
    query, key, value = (model.node("Transpose", model.node("Reshape", part, split), perm=perm)
                         for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True))
    scores = model.node("Mul", model.node("MatMul", query, key), model.constant(np.float32((size // heads) ** -0.5)))
    hidden = np.triu(np.full((places, places), -1e30, np.float32), 1)
    found = model.node("MatMul", model.node("Softmax", model.node("Add", scores, model.constant(hidden)), axis=3), value)
    joined = model.constant(np.array([0, places, size]))
    found = model.node("Reshape", model.node("Transpose", found, perm=[0, 2, 1, 3]), joined)
    return model.node("Add", x, projected(found, outer, outer_bias))


def block(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    scale, offset, w1, b1, w2, b2 = weights
    y = model.node("LayerNormalization", x, model.constant(scale), model.constant(offset), epsilon=LAYER_NORM_EPSILON)
    y = model.node("Gelu", model.dense(y, w1, b1), approximate="tanh")
    return model.node("Add", x, model.dense(y, w2, b2))


# ---- single operations

def gelu(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    a, b, c = (model.constant(weight) for weight in weights)
    u = model.node("Add", model.node("Mul", x, a), b)
    return model.node("Add", model.node("Mul", model.node("Gelu", u, approximate="tanh"), c), x)


def dense_gelu(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    return model.node("Gelu", model.dense(x, *weights), approximate="tanh")


def softmax(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    return model.node("Softmax", x, axis=1)


def loop(model: Model, workload: Workload, x: str, weights: list[np.ndarray]) -> str:
    make, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    rate, one = (onnx.numpy_helper.from_array(np.float32(value), name) for value, name in ((2.9, "rate"), (1, "one")))
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["rate", "x"], ["scaled"]), onnx.helper.make_node("Sub", ["one", "x"], ["rest"]),
         onnx.helper.make_node("Mul", ["scaled", "rest"], ["next"]), onnx.helper.make_node("Identity", ["go"], ["still"])],
        "body", [make("n", types.INT64, []), make("go", types.BOOL, []), make("x", types.FLOAT, [])],
        [make("still", types.BOOL, []), make("next", types.FLOAT, [])], [rate, one])
    return model.node("Loop", model.constant(np.int64(LOOP_STEPS)), model.constant(np.True_), x, body=body)


NETS = {"linear": mlp, "mlp": mlp, "lenet": lenet, "separable": separable, "lstm": lstm, "gru": gru, "attention": attention,
        "block": block, "gelu": gelu, "dense_gelu": dense_gelu, "softmax": softmax, "loop": loop}


def infer(workload: Workload, weights: list[np.ndarray]):
    model = Model()
    ((_, shape),) = feed_types(workload)
    output = NETS[workload.net](model, workload, "x", weights)
    ranks = {"attention": 3, "gelu": 1, "loop": 0}
    session = model.session([("x", [None, *shape[1:]] if shape else [])], output, ranks.get(workload.net, 2))
    return lambda x: session.run(None, {"x": x})[0]


def product(workload: Workload, weights: list[np.ndarray]):
    """Of two matrices, or two vectors."""
    model = Model()
    shapes = [list(shape) for _, shape in feed_types(workload)]
    result = model.node("MatMul", "a", "b")
    session = model.session([("a", shapes[0]), ("b", shapes[1])], result, 2 if len(shapes[0]) > 1 else 0)
    return lambda a, b: session.run(None, {"a": a, "b": b})[0]


BUILDERS = {
    **{f"{net}_infer": infer for net in ("linear", "mlp", "lenet", "separable", "lstm", "gru", "attention", "block")},
    **dict.fromkeys(("gelu", "dense_gelu", "softmax", "loop"), infer),
    "product": product,
    "dot": product,
}
