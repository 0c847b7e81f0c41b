"""`graphc.contrib`: the few names of `tf.contrib` that many programs use, as what they became."""
from __future__ import annotations

from types import SimpleNamespace

from graphc import initializers, rnn_cell
from graphc.functions.recurrent import rnn_decoder, static_bidirectional_rnn, static_rnn
from graphc.functions.sampled import sequence_loss, sequence_loss_by_example

layers = SimpleNamespace(
    xavier_initializer=initializers.xavier_initializer, xavier_initializer_conv2d=initializers.xavier_initializer,
    variance_scaling_initializer=initializers.contrib_variance_scaling)
seq2seq = SimpleNamespace(sequence_loss=sequence_loss)
legacy_seq2seq = SimpleNamespace(rnn_decoder=rnn_decoder, sequence_loss_by_example=sequence_loss_by_example)
rnn = SimpleNamespace(
    static_rnn=static_rnn, static_bidirectional_rnn=static_bidirectional_rnn,
    **{name: getattr(rnn_cell, name) for name in (
        "BasicLSTMCell", "BasicRNNCell", "DropoutWrapper", "GRUCell", "LSTMCell", "LSTMStateTuple", "MultiRNNCell",
        "ResidualWrapper", "RNNCell")})
