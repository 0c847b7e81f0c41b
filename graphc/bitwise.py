"""`graphc.bitwise`: functions of the bits of integers, by the names of `tf.bitwise`."""
# ruff: noqa: F401  (this file only hands names on)
from graphc.functions.math import bitwise_and, bitwise_or, bitwise_xor, invert, left_shift, population_count, right_shift
