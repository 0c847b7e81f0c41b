"""A recurrent network learns to write text, letter by letter, from a file; by default from graphc's own documentation.

    python examples/char_lm.py [FILE ...]
"""
import sys
import time
from pathlib import Path

import numpy as np

import graphc as tf

BATCH, STEPS, UNITS, UPDATES = 32, 48, 160, 400
start = time.perf_counter()

files = [Path(name) for name in sys.argv[1:]] or sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
text = "\n".join(file.read_text(encoding="utf-8") for file in files)
letters, counts = np.unique(list(text), return_counts=True)
letters = letters[counts >= 10]                             # rare ones are read as the first letter, a line's end or a space
code = {letter: k for k, letter in enumerate(letters)}
codes = np.array([code.get(letter, 0) for letter in text], np.int32)
print(f"{len(codes)} letters, {len(letters)} different ones")
if len(codes) <= BATCH * STEPS:
    sys.exit(f"the text is too short: it takes more than {BATCH * STEPS} letters")

tf.set_random_seed(1)
given = tf.placeholder(tf.int32, [None, None], name="given")            # both the number of texts and their length are open
following = tf.placeholder(tf.int32, [None, None], name="following")
cell = tf.nn.rnn_cell.GRUCell(UNITS)
before = cell.zero_state(tf.shape(given)[0], tf.float32)                # a tensor: it can be fed
embedding = tf.get_variable("embedding", [len(letters), 48])
outputs, after = tf.nn.dynamic_rnn(cell, tf.nn.embedding_lookup(embedding, given), initial_state=before)
w = tf.get_variable("w", [UNITS, len(letters)])
b = tf.get_variable("b", [len(letters)], initializer=tf.zeros_initializer())
logits = tf.reshape(tf.matmul(tf.reshape(outputs, [-1, UNITS]), w) + b, [tf.shape(given)[0], -1, len(letters)])
loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=following, logits=logits))
chances = tf.nn.softmax(logits[:, -1] / 0.6)                            # below 1: the likely letters more often

optimizer = tf.train.AdamOptimizer(0.004)
slopes, variables = zip(*optimizer.compute_gradients(loss), strict=True)
train = optimizer.apply_gradients(zip(tf.clip_by_global_norm(slopes, 1.0)[0], variables, strict=True))

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    step = session.make_callable([loss, after, train], [given, following, before])
    write = session.make_callable([chances, after], [given, before])

    # The text in BATCH columns; each piece goes on where the one before ended, with the state that it left.
    columns = codes[:len(codes) // BATCH * BATCH].reshape(BATCH, -1)
    state, place, losses = np.zeros((BATCH, UNITS), np.float32), 0, []
    for update in range(1, UPDATES + 1):
        if place + STEPS + 1 > columns.shape[1]:
            state, place = np.zeros((BATCH, UNITS), np.float32), 0
        piece = columns[:, place:place + STEPS + 1]
        value, state, _ = step(piece[:, :-1].copy(), piece[:, 1:].copy(), state)
        place += STEPS
        losses.append(value)
        if update % 100 == 0:
            print(f"update {update}: {np.mean(losses[-100:]):.3f} nats a letter, {time.perf_counter() - start:.1f} s")

    random, state, letter, written = np.random.default_rng(1), np.zeros((1, UNITS), np.float32), code.get(" ", 0), []
    for _ in range(240):
        chance, state = write(np.array([[letter]], np.int32), state)
        letter = random.choice(len(letters), p=chance[0] / chance[0].sum())
        written.append(letters[letter])
print("\n" + "".join(written))
