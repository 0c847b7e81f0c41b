"""TensorFlow in its first version's style (`compat.v1`): a graph, a Session, `make_callable`."""
from __future__ import annotations

import contextlib

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, SGD_RATE, Workload

LABELS = np.int32
tf = scope = config = None


def start(threads: int, xla: bool = False) -> None:
    """With `xla` every graph is compiled whole, as one cluster."""
    global tf, scope, config
    import tensorflow

    tf = tensorflow.compat.v1
    tf.disable_v2_behavior()
    tf.logging.set_verbosity(tf.logging.ERROR)
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
    scope = tensorflow.xla.experimental.jit_scope if xla else contextlib.nullcontext


def version() -> str:
    return f"TensorFlow {tf.__version__}"


def bound(make, *inputs):
    """Build in a graph of its own with `make(*placeholders)` -> fetches, and bind the call.

    `inputs` are (dtype, shape) pairs.
    """
    graph = tf.Graph()
    with graph.as_default():
        placeholders = [tf.placeholder(dtype, shape) for dtype, shape in inputs]
        with scope():
            fetches = make(*placeholders)
        session = tf.Session(config=config)
        session.run(tf.global_variables_initializer())
        graph.finalize()
        return session.make_callable(fetches, feed_list=placeholders)


def variables(weights: list[np.ndarray]) -> list:
    # Resource variables: the only ones that XLA can update inside a cluster, and no slower without it.
    return [tf.Variable(weight, use_resource=True) for weight in weights]


def sgd():
    return tf.train.GradientDescentOptimizer(SGD_RATE)


def adam():
    return tf.train.AdamOptimizer(ADAM_RATE, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON)


def linreg(workload: Workload, weights: list[np.ndarray]):
    def make(x, y):
        w, b = variables(weights)
        loss = tf.reduce_mean(tf.square(tf.matmul(x, w) + b - y))
        return [loss, sgd().minimize(loss)]

    return bound(make, (tf.float32, [None, workload.sizes[0]]), (tf.float32, [None, 1]))


def logreg(workload: Workload, weights: list[np.ndarray]):
    def make(x, y):
        w, b = variables(weights)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=tf.matmul(x, w) + b))
        return [loss, sgd().minimize(loss)]

    return bound(make, (tf.float32, [None, workload.sizes[0]]), (tf.float32, [None, 1]))


def logits_of(x, w1, b1, w2, b2):
    return tf.matmul(tf.nn.relu(tf.matmul(x, w1) + b1), w2) + b2


def mlp_train(workload: Workload, weights: list[np.ndarray]):
    def make(x, y):
        logits = logits_of(x, *variables(weights))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        return [loss, adam().minimize(loss)]

    return bound(make, (tf.float32, [None, workload.sizes[0]]), (tf.int32, [None]))


def mlp_infer(workload: Workload, weights: list[np.ndarray]):
    return bound(lambda x: logits_of(x, *variables(weights)), (tf.float32, [None, workload.sizes[0]]))


def gelu(workload: Workload, weights: list[np.ndarray]):
    def make(x):
        a, b, c = variables(weights)
        u = x * a + b
        return 0.5 * u * (1 + tf.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u * u * u))) * c + x

    return bound(make, (tf.float32, [None]))


def dot(workload: Workload, weights: list[np.ndarray]):
    return bound(lambda a, b: tf.reduce_sum(a * b), (tf.float32, list(workload.sizes)),
                 (tf.float32, list(workload.sizes)))


def product(workload: Workload, weights: list[np.ndarray]):
    m, n, k = workload.sizes
    return bound(tf.matmul, (tf.float32, [m, k]), (tf.float32, [k, n]))


BUILDERS = {
    "linreg_train": linreg,
    "logreg_train": logreg,
    "mlp_train": mlp_train,
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}
