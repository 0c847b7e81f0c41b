"""Recurrent cells and layers: against NumPy, loop against unrolled graph, lengths, gradients, errors."""
import numpy as np
import pytest

import graphc as tf
from graphc.errors import ArgumentError, ShapeError
from graphc.functions.bodies import flatten

DEVICES = ["numpy", "cpu"]
CELLS = {
    "rnn": lambda: tf.nn.rnn_cell.BasicRNNCell(4),
    "lstm": lambda: tf.nn.rnn_cell.BasicLSTMCell(4),
    "full_lstm": lambda: tf.nn.rnn_cell.LSTMCell(5, use_peepholes=True, cell_clip=0.4, num_proj=3, proj_clip=0.3),
    "flat_lstm": lambda: tf.nn.rnn_cell.LSTMCell(4, state_is_tuple=False),
    "gru": lambda: tf.nn.rnn_cell.GRUCell(4),
    "stack": lambda: tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.BasicLSTMCell(4), tf.nn.rnn_cell.GRUCell(3)]),
    "residual": lambda: tf.nn.rnn_cell.ResidualWrapper(tf.nn.rnn_cell.BasicRNNCell(3)),
}


@pytest.fixture(autouse=True)
def seeded(fresh_graph):
    tf.set_random_seed(1)


def evaluated(fetches, feeds=None):
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run(fetches, feeds)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_reference(x, kernel, bias, forget_bias=1.0):
    """Outputs [batch, time, units] of an LSTM, by the formulas."""
    units = bias.size // 4
    h = c = np.zeros((x.shape[0], units))
    outputs = []
    for t in range(x.shape[1]):
        i, j, f, o = np.split(np.concatenate([x[:, t], h], 1) @ kernel + bias, 4, axis=1)
        c = sigmoid(f + forget_bias) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


def test_lstm_equals_the_formulas(device):
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    outputs, state = tf.nn.dynamic_rnn(tf.nn.rnn_cell.BasicLSTMCell(4), tf.constant(x), dtype=tf.float64)
    assert [v.name for v in tf.trainable_variables()] == ["rnn/basic_lstm_cell/kernel", "rnn/basic_lstm_cell/bias"]
    got, last, kernel, bias = evaluated([outputs, state.h, *tf.trainable_variables()])
    expected = lstm_reference(x, kernel, bias)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(last, expected[:, -1], rtol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_loop_equals_unrolled_graph(name, device):
    """Outputs, last state and gradients, with and without lengths; the batch and the time are named dims in the loop."""
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((3, 5, 3)), np.array([5, 0, 3])
    cell = CELLS[name]()
    placeholder = tf.placeholder(tf.float64, [None, None, 3])
    size = tf.placeholder(tf.int32, [None])
    outputs, state = tf.nn.dynamic_rnn(cell, placeholder, size, dtype=tf.float64)
    constant = tf.constant(x)
    listed, static_state = tf.nn.static_rnn(cell, tf.unstack(constant, axis=1), dtype=tf.float64, sequence_length=lengths,
                                            scope=tf.VariableScope("rnn", reuse=True))
    weights = tf.trainable_variables()
    results = []
    for stacked, last in ((outputs, state), (tf.stack(listed, 1), static_state)):
        loss = tf.reduce_sum(stacked * np.cos(np.arange(5)).reshape(1, 5, 1)) + sum(tf.reduce_sum(s * s) for s in flatten(last))
        results.append([stacked, *flatten(last), *tf.gradients(loss, weights)])
    loop, unrolled = evaluated(results, {placeholder: x, size: lengths})
    for a, b in zip(loop, unrolled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert not loop[0][1].any(), "a row of length 0 gives zeros"
    assert any(g.any() for g in loop[-len(weights):])


def test_backward_direction_starts_at_each_rows_last_step(device):
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((2, 4, 3)), [4, 2]
    make = tf.nn.rnn_cell.BasicRNNCell
    (forward, backward), (last_fw, last_bw) = tf.nn.bidirectional_dynamic_rnn(
        make(4), make(4), tf.constant(x), lengths, dtype=tf.float64)
    got, last, kernel, bias = evaluated([backward, last_bw, *[v for v in tf.global_variables() if "/bw/" in v.name]])
    for row, length in enumerate(lengths):
        h = np.zeros(4)
        for t in reversed(range(length)):
            h = np.tanh(np.concatenate([x[row, t], h]) @ kernel + bias)
            np.testing.assert_allclose(got[row, t], h, rtol=1e-12)
        np.testing.assert_allclose(last[row], h, rtol=1e-12)
        assert not got[row, length:].any()


def test_static_bidirectional_outputs_lie_side_by_side(device):
    x = np.random.default_rng(0).standard_normal((2, 4, 3))
    make = tf.nn.rnn_cell.BasicRNNCell
    outputs, _, last_bw = tf.nn.static_bidirectional_rnn(make(4), make(2), tf.unstack(tf.constant(x), axis=1), dtype=tf.float64)
    got, last = evaluated([outputs[0], last_bw])
    assert got.shape == (2, 6)
    np.testing.assert_allclose(got[:, 4:], last, rtol=1e-12)


def test_dropout_wrapper_drops_and_keeps_the_memory(device):
    cell = tf.nn.rnn_cell.DropoutWrapper(tf.nn.rnn_cell.BasicLSTMCell(50), output_keep_prob=0.5, seed=3)
    outputs, state = tf.nn.dynamic_rnn(cell, tf.ones([4, 6, 3]), dtype=tf.float32)
    got, c = evaluated([outputs, state.c])
    share = (got == 0).mean()
    assert 0.4 < share < 0.6
    assert len({row.tobytes() for row in (got[0] == 0)}) == 6, "each step has a mask of its own"
    assert c.all()


def test_variational_dropout_has_one_mask_for_all_steps(device):
    cell = tf.nn.rnn_cell.DropoutWrapper(tf.nn.rnn_cell.BasicRNNCell(40), output_keep_prob=0.5, seed=3,
                                         variational_recurrent=True, dtype=tf.float32)
    outputs, _ = tf.nn.dynamic_rnn(cell, tf.ones([2, 6, 3]), dtype=tf.float32)
    got = evaluated(outputs)
    assert len({row.tobytes() for row in (got == 0).reshape(-1, 40)}) == 1


def test_state_can_be_fed_back(device):
    cell = tf.nn.rnn_cell.BasicLSTMCell(4)
    x = tf.placeholder(tf.float32, [2, None, 3])
    start = cell.zero_state(2, tf.float32)
    outputs, state = tf.nn.dynamic_rnn(cell, x, initial_state=start)
    values = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        whole = session.run(outputs, {x: values})
        first, last = session.run([outputs, state], {x: values[:, :2]})
        second = session.run(outputs, {x: values[:, 2:], start.c: last.c, start.h: last.h})
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=1e-6, atol=1e-7)


def test_training_a_recurrent_net_lowers_its_loss(device):
    x, y = tf.placeholder(tf.float32, [None, 6, 1]), tf.placeholder(tf.float32, [None])
    outputs, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(8), x, dtype=tf.float32)
    loss = tf.reduce_mean(tf.square(tf.squeeze(tf.nn.xw_plus_b(outputs[:, -1], tf.Variable(tf.random_normal([8, 1], seed=1)),
                                                               tf.Variable(tf.zeros([1]))), 1) - y))
    step = tf.train.AdamOptimizer(0.05).minimize(loss)
    values = np.random.default_rng(0).uniform(-1, 1, (16, 6, 1))
    feeds = {x: values, y: values.sum((1, 2))}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        first = session.run(loss, feeds)
        for _ in range(30):
            session.run(step, feeds)
        assert session.run(loss, feeds) < first / 4


def test_time_major(device):
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    cell = tf.nn.rnn_cell.BasicRNNCell(4)
    a, _ = tf.nn.dynamic_rnn(cell, tf.constant(x), dtype=tf.float64, time_major=True)
    b, _ = tf.nn.dynamic_rnn(cell, tf.constant(x.swapaxes(0, 1)), dtype=tf.float64,
                             scope=tf.VariableScope("rnn", reuse=True))
    a, b = evaluated([a, b])
    np.testing.assert_allclose(a, b.swapaxes(0, 1), rtol=1e-12)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: tf.nn.dynamic_rnn("lstm", tf.zeros([2, 3, 4])), ArgumentError, "'lstm' is not a cell"),
    (lambda: tf.nn.dynamic_rnn(CELLS["gru"](), tf.zeros([3, 4]), dtype=tf.float32), ShapeError, "must have 3 axes"),
    (lambda: tf.nn.dynamic_rnn(CELLS["gru"](), tf.zeros([2, 3, 4])), ArgumentError, "dtype must be given"),
    (lambda: tf.nn.dynamic_rnn(CELLS["lstm"](), tf.zeros([2, 3, 4]), initial_state=tf.zeros([2, 4])), ArgumentError,
     "initial_state has 1 tensors, the cell's state has 2"),
    (lambda: tf.nn.dynamic_rnn(CELLS["gru"](), tf.zeros([2, 3, 4]), [[1, 2]], dtype=tf.float32), ShapeError,
     "one integer for each row"),
    (lambda: tf.nn.static_rnn(CELLS["gru"](), tf.zeros([2, 3, 4]), dtype=tf.float32), ArgumentError, "a list of tensors"),
    (lambda: tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.GRUCell(2)] * 2), ArgumentError, "one cell appears twice"),
])
def test_error_says_what_is_wrong(call, error, text):
    with pytest.raises(error, match=text):
        call()
