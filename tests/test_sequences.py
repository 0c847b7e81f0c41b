"""Labels without places in time, bags of ids, loops that a function directs, gradients that replace an op's own, and running
extremes: against sums over all cases, NumPy, or the same written in another way.
"""
import itertools

import numpy as np
import pytest
from evaluating import real, run

import graphc as tf
from graphc.testing import check_gradients

pytestmark = pytest.mark.usefixtures("device", "fresh_graph")


# connectionist temporal classification -----------------------------------------------------------------------------------

LABELS, STEPS = [[0, 1], [1, 1], [0], []], [4, 3, 2, 1]


def sparse(labels):
    return tf.SparseTensor([[b, k] for b, row in enumerate(labels) for k in range(len(row))],
                           [v for row in labels for v in row], [len(labels), max(map(len, labels))])


def over_all_ways(logits, labels, steps, blank):
    """Minus the log of the sum over all ways that give the labels."""
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for way in itertools.product(range(logits.shape[1]), repeat=steps):
        if [k for k, _ in itertools.groupby(way) if k != blank] == labels:
            total += np.prod([p[t, k] for t, k in enumerate(way)])
    return -np.log(total) if total else np.inf


def test_ctc_loss_is_the_sum_over_all_ways():
    x = real(4, 4, 3)
    logits = tf.placeholder(tf.float64, [None, None, 3])
    loss = tf.nn.ctc_loss(sparse(LABELS), logits, STEPS)
    dense = tf.nn.ctc_loss_v2(np.array([[1, 2], [2, 2], [1, 0], [0, 0]]), logits, [2, 2, 1, 0], STEPS)
    late = tf.nn.ctc_loss_v2(np.array([[1, 2], [2, 2], [1, 0], [0, 0]]), tf.transpose(logits, [1, 0, 2]), [2, 2, 1, 0], STEPS,
                             logits_time_major=False)
    found, other, turned = run([loss, dense, late], {logits: x})
    assert np.allclose(found, [over_all_ways(x[:, b], LABELS[b], STEPS[b], 2) for b in range(4)], rtol=1e-12)
    moved = [[k + 1 for k in row] for row in LABELS]
    assert np.allclose(other, [over_all_ways(x[:, b], moved[b], STEPS[b], 0) for b in range(4)], rtol=1e-12)
    assert np.array_equal(other, turned)


def test_ctc_labels_that_do_not_fit():
    logits = tf.constant(real(2, 1, 3))
    labels = sparse([[1, 1]])
    loss, ignored = tf.nn.ctc_loss(labels, logits, [2]), tf.nn.ctc_loss(labels, logits, [2],
                                                                       ignore_longer_outputs_than_inputs=True)
    found = run([loss, ignored, tf.gradients(loss, logits)[0], tf.gradients(ignored, logits)[0]])
    assert found[0] == [np.inf] and found[1] == [0] and not found[2].any() and not found[3].any()


def test_ctc_arguments_are_checked():
    logits = tf.placeholder(tf.float32, [None, 2, 3])
    with pytest.raises(tf.errors.ArgumentError, match="is not a sparse tensor"):
        tf.nn.ctc_loss(np.zeros((2, 2)), logits, [1, 1])
    with pytest.raises(tf.errors.ArgumentError, match="told apart by a blank"):
        tf.nn.ctc_loss(sparse([[1], [1]]), logits, [1, 1], ctc_merge_repeated=False)
    with pytest.raises(tf.errors.ArgumentError, match="blank 3 of 3"):
        tf.nn.ctc_greedy_decoder(logits, [1, 1], blank_index=3)
    with pytest.raises(tf.errors.ShapeError, match="logits have three axes"):
        tf.nn.ctc_greedy_decoder(logits[0], [1, 1])


@pytest.mark.parametrize("merge", [True, False])
def test_ctc_greedy_decoder(merge):
    best = np.array([[0, 0, 2, 0], [1, 1, 0, 2], [2, 2, 2, 2]])
    x = np.eye(3)[best.T] * 3 - real(4, 3, 3) * 0.1
    (labels,), score = tf.nn.ctc_greedy_decoder(tf.constant(x), [4, 2, 3], merge_repeated=merge)
    found, scores = run([labels, score])
    want = [[0, 0], [1], []] if merge else [[0, 0, 0], [1, 1], []]
    assert found.values.tolist() == sum(want, [])
    assert found.indices.tolist() == [[b, k] for b, row in enumerate(want) for k in range(len(row))]
    assert found.dense_shape.tolist() == [3, max(map(len, want))]
    assert np.allclose(scores[:, 0], [-sum(x[t, b].max() for t in range(n)) for b, n in enumerate([4, 2, 3])])


def test_ctc_beam_search_finds_the_likeliest_labels():
    """With beams enough, the best of all labellings, by the sums over all of their ways."""
    x, steps = real(4, 2, 3), [4, 3]
    paths, scores = tf.nn.ctc_beam_search_decoder(tf.constant(x), steps, beam_width=40, top_paths=3, merge_repeated=False)
    merged, _ = tf.nn.ctc_beam_search_decoder(tf.constant(x), steps, beam_width=40, top_paths=3)
    found, joined, values = run([paths, merged, scores])
    for b, count in enumerate(steps):
        every = {tuple(k for k, _ in itertools.groupby(way) if k != 2) for way in itertools.product(range(3), repeat=count)}
        loss = {labels: over_all_ways(x[:, b], list(labels), count, 2) for labels in every}
        best = sorted(loss, key=loss.get)[:3]
        assert np.allclose(values[b], [-loss[labels] for labels in best])
        for path, other, labels in zip(found, joined, best, strict=True):
            assert path.values[path.indices[:, 0] == b].tolist() == list(labels)
            assert other.values[other.indices[:, 0] == b].tolist() == [k for k, _ in itertools.groupby(labels)]


# bags of ids -------------------------------------------------------------------------------------------------------------


def test_embedding_of_bags():
    table = real(5, 2)
    ids = tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [1, 3, 0], [3, 2])
    weights = tf.SparseTensor(ids.indices, [1.0, 3.0, 2.0], ids.dense_shape)
    rows = [table[1] + 3 * table[3], 0 * table[0], 2 * table[0]]
    params = tf.constant(table)
    for combiner, divided in (("sum", [1, 1, 1]), ("mean", [4, 1, 2]), ("sqrtn", [np.sqrt(10), 1, 2])):
        found = run(tf.nn.embedding_lookup_sparse(params, ids, weights, combiner=combiner))
        assert np.allclose(found, np.array(rows) / np.array(divided)[:, None])
    plain = run(tf.nn.embedding_lookup_sparse([params], ids, None))
    assert np.allclose(plain, [(table[1] + table[3]) / 2, [0, 0], table[0]])
    short = run(tf.nn.embedding_lookup_sparse(params, ids, None, combiner="sum", max_norm=0.1))
    assert np.isclose(np.linalg.norm(short[2]), 0.1)
    check_gradients(lambda t: tf.nn.embedding_lookup_sparse(t, ids, weights, combiner="sqrtn"), table)
    with pytest.raises(tf.errors.ArgumentError, match="'max' is no combiner"):
        tf.nn.embedding_lookup_sparse(params, ids, None, combiner="max")


def test_safe_embedding_of_bags():
    table = real(4, 2)
    ids = tf.SparseTensor([[0, 0], [0, 1], [1, 0], [3, 1]], [1, -1, 2, 3], [4, 2])
    weights = tf.SparseTensor(ids.indices, [2.0, 1.0, 0.0, 1.0], ids.dense_shape)
    params = tf.constant(table)
    found = run([tf.nn.safe_embedding_lookup_sparse(params, ids), tf.nn.safe_embedding_lookup_sparse(params, ids, default_id=0),
                 tf.nn.safe_embedding_lookup_sparse(params, ids, weights)])
    zero = [0, 0]
    assert np.allclose(found[0], [table[1], table[2], zero, table[3]])
    assert np.allclose(found[1], [table[1], table[2], table[0], table[3]])
    assert np.allclose(found[2], [table[1], zero, zero, table[3]])


def test_sparse_tensor_to_dense():
    given = tf.SparseTensor([[0, 1], [2, 0]], [5, 7], [3, 2])
    found = run([tf.sparse_tensor_to_dense(given), tf.sparse_tensor_to_dense(given, default_value=-1)])
    assert found[0].tolist() == [[0, 5], [0, 0], [7, 0]] and found[1].tolist() == [[-1, 5], [-1, -1], [7, -1]]


def test_sparse_placeholder():
    ids = tf.sparse_placeholder(tf.int64, [None, 4], name="ids")
    found = tf.sparse_tensor_to_dense(ids)
    bags = tf.nn.embedding_lookup_sparse(tf.constant(real(9, 2)), ids, None, combiner="sum")
    with tf.Session() as session:
        for rows, places, values in ((3, [[0, 1], [2, 0]], [5, 7]), (2, [[1, 3]], [8]), (1, np.zeros((0, 2)), [])):
            want = np.zeros((rows, 4))
            want[tuple(np.array(places, int).T)] = values
            whole, sums = session.run([found, bags], {ids: tf.SparseTensorValue(places, values, [rows, 4])})
            assert np.array_equal(whole, want) and sums.shape == (rows, 2)
        with pytest.raises(tf.errors.FeedError, match="indices, values, dense_shape"):
            session.run(found, {ids: np.zeros((3, 4))})
    with pytest.raises(tf.errors.ArgumentError, match="the number of axes must be known"):
        tf.sparse_placeholder(tf.float32)


# loops that a function directs -------------------------------------------------------------------------------------------


def test_raw_rnn_equals_dynamic_rnn():
    x, lengths = tf.constant(real(5, 2, 3)), tf.constant([3, 4])

    def directed(time, output, state, loop_state):
        ends = time >= lengths
        given = tf.cond(tf.reduce_all(ends), lambda: tf.zeros([2, 3], tf.float64), lambda: x[tf.minimum(time, 4)])
        state = cells[0].zero_state(2, tf.float64) if output is None else state
        return ends, given, state, output, 0 if loop_state is None else loop_state + time
    cells = [tf.nn.rnn_cell.GRUCell(4), tf.nn.rnn_cell.GRUCell(4)]
    with tf.variable_scope("a"):
        outputs, state, counted = tf.nn.raw_rnn(cells[0], directed)
    with tf.variable_scope("b"):
        wanted, last = tf.nn.dynamic_rnn(cells[1], x, lengths, dtype=tf.float64, time_major=True)
    own, other = ([v for v in tf.trainable_variables() if v.name.startswith(s)] for s in ("a/", "b/"))
    assert len(own) == len(other) == 4
    slopes = [tf.gradients([o, s], v) for o, s, v in ((outputs, state, own), (wanted, last, other))]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run([b.assign(a) for a, b in zip(own, other, strict=True)])
        found = session.run([outputs, wanted, state, last, *slopes, counted])
    assert found[0].shape == (4, 2, 4) and np.allclose(found[0], found[1][:4]) and np.allclose(found[2], found[3])
    assert all(np.allclose(a, b) for a, b in zip(found[4], found[5], strict=True)) and found[6] == 1 + 2 + 3 + 4


def test_decoder_and_losses_of_lists():
    x, state = [real(2, 3, seed=k) for k in range(3)], tf.constant(real(2, 4))
    cell = tf.nn.rnn_cell.BasicRNNCell(4)
    seq2seq = tf.contrib.legacy_seq2seq
    assert seq2seq.rnn_decoder is tf.nn.seq2seq.rnn_decoder
    assert (tf.nn.deconv2d, tf.concat_v2) == (tf.nn.conv2d_transpose, tf.concat)
    with tf.variable_scope("a"):
        outputs, last = seq2seq.rnn_decoder(x, state, cell)
        back, _ = seq2seq.rnn_decoder(x, state, cell, loop_function=lambda output, k: output[:, :3] * float(k))
    targets, weights = [np.array([0, 1]), np.array([3, 2]), np.array([1, 1])], [np.array(w) for w in ([1.0, 1], [1, 0], [2, 0])]
    losses = seq2seq.sequence_loss_by_example(outputs, targets, weights)
    found, final, other, loss, *variables = run([outputs, last, back, losses, *tf.trainable_variables()])
    kernel, bias = variables
    h = real(2, 4)
    total = np.zeros(2)
    for k, step in enumerate(x):
        h = np.tanh(np.concatenate([step, h], 1) @ kernel + bias)
        assert np.allclose(found[k], h)
        p = np.exp(h) / np.exp(h).sum(1, keepdims=True)
        total -= np.log(p[[0, 1], targets[k]]) * weights[k]
    assert np.allclose(final, h) and np.allclose(loss, total / [4, 1])
    assert np.allclose(other[1], np.tanh(np.concatenate([other[0][:, :3], other[0]], 1) @ kernel + bias))
    with pytest.raises(tf.errors.ArgumentError, match="lists of the same length"):
        seq2seq.sequence_loss_by_example(outputs, targets[:2], weights)


# gradients that replace an op's own --------------------------------------------------------------------------------------


@tf.RegisterGradient("TripleTimesInput")
def _tripled(op, grad):
    assert op.type == "rint" and len(op.outputs) == 1 and op.get_attr is not None
    return 3 * grad * op.inputs[0]


@tf.RegisterGradient("OnlyToTheFirst")
def _only_first(op, grad):
    return [tf.maximum(grad, op.outputs[0]), None]


def test_gradient_override_map():
    x = tf.constant([0.5, -2.0])
    graph = tf.get_default_graph()
    with graph.gradient_override_map({"Round": "TripleTimesInput", "Maximum": "OnlyToTheFirst"}):
        rounded = tf.rint(x) * 2.0
        top = tf.maximum(x, 0.25)
    plain = tf.maximum(x, 0.25)
    found = run([rounded, tf.gradients(rounded, x)[0], tf.gradients(tf.gradients(rounded, x)[0], x)[0],
                 tf.gradients(top, x)[0], tf.gradients(plain, x)[0]])
    assert [f.tolist() for f in found] == [[0, -4], [3, -12], [6, 6], [1, 1], [1, 0]]
    with pytest.raises(tf.errors.ArgumentError, match="no op 'Softmaxx'"), graph.gradient_override_map({"Softmaxx": "A"}):
        pass
    with graph.gradient_override_map({"Exp": "nobody"}), pytest.raises(tf.errors.ArgumentError, match="cannot have"):
        tf.exp(x)
    with pytest.raises(tf.errors.ArgumentError, match="'OnlyToTheFirst' is taken"):
        tf.RegisterGradient("OnlyToTheFirst")(lambda op, grad: grad)


# running extremes and pooled places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_running_extremes_with_ties_and_nan(reverse):
    x = np.array([[1.0, 3, 3, 2, 4, 4], [np.nan, 1, 2, 3, 2, 1]])
    c = tf.constant(x)
    flip = (lambda v: v[:, ::-1]) if reverse else (lambda v: v)
    top, low = tf.math.cummax(c, 1, reverse=reverse), tf.math.cummin(c, axis=-1, reverse=reverse)
    slope, = tf.gradients(top[:1], c)
    found = run([top, low, slope])
    assert np.array_equal(found[0], flip(np.maximum.accumulate(flip(x), 1)), equal_nan=True)
    assert np.array_equal(found[1], flip(np.minimum.accumulate(flip(x), 1)), equal_nan=True)
    assert found[2][0].tolist() == ([0, 0, 0, 0, 0, 6] if reverse else [1, 3, 0, 0, 2, 0])


@pytest.mark.parametrize("batch", [False, True])
def test_max_pool_with_argmax(batch):
    x = real(2, 5, 6, 3)
    values, places = tf.nn.max_pool_with_argmax(tf.constant(x), [1, 2, 3, 1], [1, 2, 2, 1], "SAME",
                                                include_batch_in_index=batch)
    plain = tf.nn.max_pool(tf.constant(x), [1, 2, 3, 1], [1, 2, 2, 1], "SAME")
    found, at, wanted = run([values, places, plain])
    flat = x.reshape(-1) if batch else x.reshape(2, -1)
    picked = flat[at] if batch else np.take_along_axis(flat, at.reshape(2, -1), 1).reshape(at.shape)
    assert np.array_equal(found, wanted) and np.array_equal(picked, wanted) and at.dtype == np.int64
    with pytest.raises(tf.errors.ArgumentError, match="'NCHW'"):
        tf.nn.max_pool_with_argmax(tf.constant(x), 2, 2, "SAME", data_format="NCHW")


# rows of variables, norms and losses -------------------------------------------------------------------------------------


def test_rows_of_variables_multiplied_and_compared():
    v, n = tf.Variable(np.arange(1.0, 7).reshape(3, 2)), tf.Variable(np.array([7, -7]))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(tf.scatter_mul(v, [0, 2, 0], [[2.0, 2], [3, 3], [5, 5]])).tolist() == [[10, 20], [3, 4], [15, 18]]
        assert session.run(tf.scatter_div(v, [[1]], [[[2.0, 4]]])).tolist() == [[10, 20], [1.5, 1], [15, 18]]
        assert session.run(tf.scatter_div(n, [0, 1], [2, 2])).tolist() == [3, -3]
        assert session.run(tf.scatter_max(v, [1, 1], [[2.0, 0], [0, 3]])).tolist() == [[10, 20], [2, 3], [15, 18]]
        assert session.run(tf.scatter_min(v, [0], 12.0)).tolist() == [[10, 12], [2, 3], [15, 18]]
        with pytest.raises(tf.errors.RunError, match="scatter_mul: index outside"):
            session.run(tf.scatter_mul(v, [3], [[1.0, 1]]))


def test_clip_by_average_norm():
    x = real(3, 4)
    average = np.linalg.norm(x) / 12
    found = run([tf.clip_by_average_norm(tf.constant(x), average / 2), tf.clip_by_average_norm(tf.constant(x), 10.0),
                 tf.clip_by_average_norm(tf.zeros([2]), 1.0)])
    assert np.allclose(found[0], x / 2) and np.allclose(found[1], x) and not found[2].any()


def test_mean_pairwise_squared_error():
    labels, predictions, weights = real(3, 4), real(3, 4, seed=1), np.array([1.0, 0, 2])
    d = predictions - labels
    rows = np.array([np.mean([(a - b) ** 2 for k, a in enumerate(r) for j, b in enumerate(r) if j != k]) for r in d])
    found = run([tf.losses.mean_pairwise_squared_error(labels, tf.constant(predictions)),
                 tf.losses.mean_pairwise_squared_error(labels, tf.constant(predictions), weights)])
    assert np.allclose(found, [rows.sum(), (rows * weights).sum()])
    assert len(tf.losses.get_losses()) == 2
    check_gradients(lambda p: tf.losses.mean_pairwise_squared_error(labels, p, weights), predictions)


def test_adagrad_dual_averaging():
    start, slopes = np.array([1.0, -2, 0.5]), real(3, 3)
    v, g, step = tf.Variable(start), tf.placeholder(tf.float64, [3]), tf.Variable(np.int64(0), trainable=False)
    optimizer = tf.train.AdagradDAOptimizer(0.5, step, l1_regularization_strength=0.3, l2_regularization_strength=0.1)
    train = optimizer.apply_gradients([(g, v)], global_step=step)
    z, a = np.zeros(3), np.full(3, 0.1)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for t, slope in enumerate(slopes, 1):
            session.run(train, {g: slope})
            z, a = z + slope, a + slope ** 2
            want = -0.5 * np.sign(z) * np.maximum(np.abs(z) - 0.3 * t, 0) / (0.1 * t * 0.5 + np.sqrt(a))
            assert np.allclose(session.run(v), want)


# cropped images ----------------------------------------------------------------------------------------------------------


def test_crop_and_resize_of_whole_images_is_a_resize():
    x = real(2, 4, 5, 3)
    boxes, owner = [[0.0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]], [1, 0, 0]
    found = run([tf.image.crop_and_resize(tf.constant(x), boxes, owner, [7, 3]),
                 tf.image.resize_bilinear(tf.constant(x), [7, 3], align_corners=True),
                 tf.image.crop_and_resize(tf.constant(x), boxes, owner, [4, 5], method="nearest"),
                 tf.image.crop_and_resize(tf.constant(x), [[0.0, 0.25, 1, 0.75]], [0], [1, 1], method="nearest"),
                 tf.image.crop_and_resize(tf.constant(x), [[-1.0, 0, 1, 1]], [0], [3, 2], extrapolation_value=9)])
    assert np.allclose(found[0], found[1][[1, 0, 0]][:, :, :] * [[[[1]]], [[[1]]], [[[0]]]] + [
        np.zeros((7, 3, 3)), np.zeros((7, 3, 3)), found[1][0][::-1, ::-1]], atol=1e-6)
    assert np.array_equal(found[2], [x[1], x[0], x[0][::-1, ::-1]])
    assert np.array_equal(found[3][0, 0, 0], x[0, 2, 2])
    assert (found[4][0, 0] == 9).all() and np.allclose(found[4][0, 2], x[0, 3, [0, 4]])


def test_gradients_of_crop_and_resize():
    x, boxes = real(2, 4, 5, 2), np.array([[0.11, 0.23, 0.87, 0.91], [0.73, 0.1, 0.2, 0.66]])
    check_gradients(lambda v: tf.image.crop_and_resize(v, boxes, [1, 0], [3, 4]), x)
    check_gradients(lambda b: tf.image.crop_and_resize(tf.constant(x), b, [1, 0], [3, 2]), boxes)
    with pytest.raises(tf.errors.ShapeError, match="the operands do not fit"):
        tf.image.crop_and_resize(tf.constant(x), boxes[0], [0], [2, 2])
    with pytest.raises(tf.errors.RunError, match="crop_and_resize: index outside"):
        run(tf.image.crop_and_resize(tf.constant(x), boxes, [0, 2], [2, 2]))
