"""What is measured: for each workload its sizes and what it costs at least.  Its weights and feeds are in `data.py`.

Everything a peer needs to build a workload is here, so that all peers compute the same numbers.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

FEED_SETS = 8           # different batches, cycled
CHECK_STEPS = 20        # the losses of all peers must agree after so many steps
TOLERANCE = 1e-3        # relative

SGD_RATE = 0.01
MOMENTUM = 0.5
ADAM_RATE, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-8
GELU_SCALARS = (1.1, 0.1, 0.9)      # a, b, c
LAYER_NORM_EPSILON = 1e-5
LOOP_STEPS = 100_000
STATES = {None: 0, "sgd": 1, "momentum": 2, "adam": 3}      # arrays as large as the weights that an update reads and writes
SERIES = ("batch", "width")         # groups that only draw a curve: few peers, no rows of the summary


@dataclass(frozen=True)
class Workload:
    """One row of the table.  Peers choose the code to build by `kind`, and take sizes from the other fields.

    The costs are those of one call and lower bounds, for they assume that what is made is used at once: `flops` are
    those of the products, an addition and a multiplication counting one each; `reads` and `writes` are bytes of feeds,
    weights, optimizer state and results; `chain` is how many operations must wait for each other.
    """

    name: str
    kind: str
    doc: str
    sizes: tuple[int, ...]              # see `data.shapes`
    batch: int = 0                      # rows of a batch
    group: str = "training"
    loss: str | None = None             # squares, sigmoid or classes
    optimizer: str | None = None        # sgd, momentum or adam
    threads: int | None = None          # a fixed number instead of the one that the user asked for
    flops: int = 0
    reads: int = 0
    writes: int = 0
    footprint: int = 0                  # bytes that are kept from one call to the next: says which memory's speed counts
    chain: int = 0

    @property
    def trains(self) -> bool:
        """Whether a call changes weights and returns a loss."""
        return self.optimizer is not None

    @property
    def net(self) -> str:
        """The kind without `_train` or `_infer`."""
        return self.kind.removesuffix("_train").removesuffix("_infer")

    @property
    def feed_sets(self) -> int:
        return 1 if self.group == "memory" else FEED_SETS       # eight of the largest feed would be half a gigabyte


def _of_net(name: str, net: str, doc: str, sizes: tuple[int, ...], batch: int, *, group: str, weights: int,
            products: list, feed: int, result: int, loss: str | None = None, optimizer: str | None = None,
            again: int = 0) -> Workload:
    """A net's training step, or with no optimizer its prediction.

    products: operations of each product of an example, the first ones of those that a feed goes into. Backwards, each
    product comes twice more, but nobody wants a feed's gradient.  weights, feed, result: numbers of floats, the last two
    of an example.  again: floats of weights that are read once more for each later step of a recurrence.
    """
    first, inner = products
    flops = batch * ((2 if optimizer else 1) * sum(first) + (3 if optimizer else 1) * sum(inner))
    state = STATES[optimizer] * weights
    what = {"squares": "mean squared error", "sigmoid": "sigmoid cross entropy from logits",
            "classes": "sparse softmax cross entropy", None: "the prediction"}[loss]
    how = {"sgd": ", SGD", "momentum": ", SGD with momentum 0.5", "adam": ", Adam", None: ""}[optimizer]
    kind = f"{net}_{'train' if optimizer else 'infer'}"
    return Workload(name, kind, f"{doc}, {what}{how}, batch {batch}", sizes, batch, group, loss, optimizer,
                    flops=flops, reads=4 * (max(state, weights) + again + batch * feed), writes=4 * (state or batch * result),
                    footprint=4 * (max(state, weights) + FEED_SETS * batch * feed + batch * result))


def _mlp(name: str, layers: tuple[int, ...], batch: int, trains: bool, group: str = "") -> Workload:
    pairs = list(zip(layers, layers[1:], strict=False))
    products = [2 * m * n for m, n in pairs]
    middle = "-".join(f"{width}(relu)" for width in layers[1:-1])
    if len(layers) > 5:
        middle = f"{len(layers) - 2} of {layers[1]}(relu)"
    return _of_net(name, "mlp", f"{layers[0]}-{middle}-{layers[-1]}", layers, batch,
                   group=group or ("training" if trains else "inference"), weights=sum(m * n + n for m, n in pairs),
                   products=[products[:1], products[1:]], feed=layers[0], result=layers[-1],
                   loss="classes" if trains else None, optimizer="adam" if trains else None)


def _lenet(name: str, batch: int, trains: bool, group: str = "convolution") -> Workload:
    side, one, two, hidden = sizes = (28, 10, 20, 50)
    weights = 25 * one + one + 25 * one * two + two + 16 * two * hidden + hidden + 10 * hidden + 10
    doc = "1x28x28: conv 5x5 to 10, pool, relu, conv 5x5 to 20, pool, relu, 320-50 relu, 50-10"
    return _of_net(name, "lenet", doc, sizes, batch, group=group, weights=weights, feed=side * side, result=10,
                   products=[[2 * 24 * 24 * one * 25], [2 * 64 * two * one * 25, 2 * 16 * two * hidden, 2 * hidden * 10]],
                   loss="classes" if trains else None, optimizer="momentum" if trains else None)


def _separable(name: str, batch: int, trains: bool) -> Workload:
    """Depthwise convolutions between products of 1x1, odd channels, with and without padding and strides."""
    side, *channels = sizes = (33, 3, 13, 27, 51, 51)
    places = (16 * 16, 16 * 16, 7 * 7, 7 * 7)
    inner, weights = [], 9 * channels[0] * channels[1] + channels[1] + 10 * channels[-1] + 10
    for area, into, out in zip(places[1:], channels[1:], channels[2:], strict=False):
        inner += [2 * 9 * area * into, 2 * area * into * out]
        weights += 9 * into + into * out + out
    doc = "3x33x33: conv 3x3 by 2 to 13; depthwise 3x3 and 1x1 to 27, by 2 to 51, to 51; mean, 51-10"
    return _of_net(name, "separable", doc, sizes, batch, group="convolution", weights=weights, feed=3 * side * side, result=10,
                   products=[[2 * places[0] * 9 * channels[0] * channels[1]], [*inner, 2 * channels[-1] * 10]],
                   loss="classes" if trains else None, optimizer="momentum" if trains else None)


def _lstm(name: str, batch: int, trains: bool) -> Workload:
    steps, inputs, units, classes = sizes = (50, 64, 128, 10)
    gates = 4 * units
    doc = f"two LSTM layers, {inputs} inputs, {units} units, {steps} steps, last output to {classes} classes"
    weights = gates * (inputs + 3 * units + 2) + units * classes + classes
    return _of_net(name, "lstm", doc, sizes, batch, group="recurrence", weights=weights,
                   products=[[2 * steps * gates * inputs], [2 * steps * gates * 3 * units, 2 * units * classes]],
                   feed=steps * inputs, result=classes, again=(steps - 1) * 2 * units * gates,
                   loss="classes" if trains else None, optimizer="adam" if trains else None)


def _gru(name: str, batch: int, trains: bool) -> Workload:
    steps, inputs, units, classes = sizes = (30, 40, 72, 10)
    gates = 3 * units
    doc = f"a GRU layer, {inputs} inputs, {units} units, {steps} steps, last output to {classes} classes"
    return _of_net(name, "gru", doc, sizes, batch, group="recurrence",
                   weights=gates * (inputs + units + 2) + units * classes + classes,
                   products=[[2 * steps * gates * inputs], [2 * steps * gates * units, 2 * units * classes]],
                   feed=steps * inputs, result=classes, again=(steps - 1) * units * gates,
                   loss="classes" if trains else None, optimizer="adam" if trains else None)


def _attention(name: str, batch: int, trains: bool) -> Workload:
    steps, size, heads = sizes = (128, 64, 4)
    scores = 2 * size * steps * (steps + 1) // 2        # of the places that a query may see; the same again for the sum
    return _of_net(name, "attention", f"x + causal attention, {heads} heads, {steps} places of {size}", sizes, batch,
                   group="recurrence", weights=4 * size * size + 4 * size,
                   products=[[2 * steps * size * 3 * size], [scores, scores, 2 * steps * size * size]],
                   feed=(2 if trains else 1) * steps * size, result=steps * size,
                   loss="squares" if trains else None, optimizer="adam" if trains else None)


def _block(name: str, batch: int, trains: bool) -> Workload:
    size, hidden = sizes = (195, 780)
    return _of_net(name, "block", f"x + product(gelu(product(layer norm(x)))), {size} to {hidden} and back", sizes, batch,
                   group="recurrence", weights=2 * size * hidden + hidden + 3 * size,
                   products=[[], [2 * size * hidden] * 2], feed=(2 if trains else 1) * size, result=size,
                   loss="squares" if trains else None, optimizer="adam" if trains else None)


def _linear(name: str, inputs: int, batch: int, loss: str) -> Workload:
    return _of_net(name, "linear", f"{inputs} inputs, linear model", (inputs, 1), batch, group="training", weights=inputs + 1,
                   products=[[2 * inputs], []], feed=inputs + 1, result=1, loss=loss, optimizer="sgd")


def _product(name: str, m: int, n: int, k: int) -> Workload:
    return Workload(name, "product", f"({m}x{k}) times ({k}x{n}), one thread", (m, n, k), m, "products", threads=1,
                    flops=2 * m * n * k, reads=4 * (m * k + k * n), writes=4 * m * n,
                    footprint=4 * (FEED_SETS * (m * k + k * n) + m * n))


def _dense_gelu(name: str, m: int, n: int, k: int) -> Workload:
    return Workload(name, "dense_gelu", f"gelu_tanh(x w + bias), ({m}x{k}) times ({k}x{n})", (m, n, k), m, "products",
                    flops=2 * m * n * k, reads=4 * (m * k + k * n + n), writes=4 * m * n,
                    footprint=4 * (FEED_SETS * m * k + k * n + n + m * n))


def _sweep(name: str, kind: str, doc: str, sizes: tuple[int, ...]) -> Workload:
    """What reads an array and writes one of the same size."""
    size = 4 * math.prod(sizes)
    return Workload(name, kind, doc, sizes, sizes[0], "memory", reads=size, writes=size, footprint=2 * size)


WORKLOADS = {workload.name: workload for workload in (
    _linear("linreg_train", 13, 256, "squares"),
    _linear("logreg_train", 30, 128, "sigmoid"),
    _mlp("mlp10_train", (784, 10, 10), 32, trains=True),
    _mlp("mlp128_train_b32", (784, 128, 10), 32, trains=True),
    _mlp("mlp128_train_b512", (784, 128, 10), 512, trains=True),
    _mlp("mlp_odd_train", (301, 77, 13), 37, trains=True),
    _mlp("mlp_wide_train", (256, 4096, 10), 8, trains=True),
    _mlp("mlp_deep_train", (24,) * 25, 16, trains=True),
    _mlp("mlp128_infer_b1", (784, 128, 10), 1, trains=False),
    _mlp("mlp128_infer_b512", (784, 128, 10), 512, trains=False),
    _mlp("mlp_odd_infer", (301, 77, 13), 37, trains=False),
    _mlp("mlp_deep_infer", (24,) * 25, 16, trains=False),
    Workload("small_call", "dot", "two feeds of 4 floats, their inner product", (4,), 4, "inference", flops=8),
    Workload("new_batch", "mlp_infer", "784-128(relu)-10, the prediction: first call with a batch size never seen",
             (784, 128, 10), 32, "inference"),
    _lenet("lenet_train_b64", 64, trains=True),
    _lenet("lenet_infer_b1", 1, trains=False),
    _lenet("lenet_infer_b64", 64, trains=False),
    _separable("separable_train_b16", 16, trains=True),
    _separable("separable_infer_b1", 1, trains=False),
    _lstm("lstm_train", 32, trains=True),
    _lstm("lstm_infer_b1", 1, trains=False),
    _gru("gru_train_b24", 24, trains=True),
    _gru("gru_infer_b1", 1, trains=False),
    _attention("attention_train_b4", 4, trains=True),
    _attention("attention_infer_b4", 4, trains=False),
    _block("block_train_b96", 96, trains=True),
    _block("block_infer_b96", 96, trains=False),
    _sweep("gelu_fwd", "gelu", "gelu_tanh(x*a+b)*c + x over 16M floats, scalars a b c", (2**24,)),
    _sweep("gelu_grad", "gelu_grad", "gradients of its mean with respect to x, a, b, c", (2**24,)),
    _sweep("softmax_rows", "softmax", "softmax of each row of 4096x1024", (4096, 1024)),
    _dense_gelu("mm_gelu_1024", 1024, 1024, 1024),
    _dense_gelu("mm_gelu_64", 64, 256, 256),
    _product("product_32x128x784", 32, 128, 784),
    _product("product_512", 512, 512, 512),
    # Rates above 3.57 make the recurrence chaotic: two right answers would have nothing in common.  Two of an iteration's
    # three operations wait for each other.
    Workload("loop_100k", "loop", "100,000 iterations of x = 2.9 x (1 - x) in a compiled loop", (1,), 1, "recurrence",
             threads=1, flops=3 * LOOP_STEPS, chain=2 * LOOP_STEPS),
    *(_mlp(f"mlp128_train_b{batch}", (784, 128, 10), batch, True, "batch") for batch in (1, 4, 16, 64, 128, 256)),
    *(_lenet(f"lenet_train_b{batch}", batch, True, "batch") for batch in (1, 4, 16, 256)),
    *(_mlp(f"mlp{width}_train_b32", (784, width, 10), 32, True, "width")
      for width in (8, 16, 32, 64, 256, 512, 1024, 2048)),
)}
GROUPS = list(dict.fromkeys(workload.group for workload in WORKLOADS.values()))
