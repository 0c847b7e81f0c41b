"""`graphc.contrib`: the few names of `tf.contrib` that many programs use, as what they became."""
from __future__ import annotations

from types import SimpleNamespace

from graphc import initializers, rnn_cell
from graphc.functions.recurrent import static_bidirectional_rnn, static_rnn
from graphc.functions.sampled import sequence_loss

layers = SimpleNamespace(
    xavier_initializer=initializers.xavier_initializer, xavier_initializer_conv2d=initializers.xavier_initializer,
    variance_scaling_initializer=initializers.contrib_variance_scaling)
seq2seq = SimpleNamespace(sequence_loss=sequence_loss)
rnn = SimpleNamespace(
    static_rnn=static_rnn, static_bidirectional_rnn=static_bidirectional_rnn,
    **{name: getattr(rnn_cell, name) for name in (
        "BasicLSTMCell", "BasicRNNCell", "DropoutWrapper", "GRUCell", "LSTMCell", "LSTMStateTuple", "MultiRNNCell",
        "ResidualWrapper", "RNNCell")})
