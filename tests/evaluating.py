"""Values of tensors and for tensors, for the tests of functions."""
import numpy as np

import graphc as tf


def run(fetches, feeds=None):
    """The values in a session of their own, with the variables as they begin."""
    with tf.Session() as session:
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        return session.run(fetches, feeds)


def real(*shape, seed=0):
    """Normal numbers in float64, the same ones for the same seed."""
    return np.random.default_rng(seed).normal(size=shape)
