"""`graphc.random`: random numbers by the names of `tf.random`."""
# ruff: noqa: F401  (this file only hands names on)
from graphc.functions.random import categorical, multinomial, set_random_seed, truncated_normal
from graphc.functions.random import random_gamma as gamma
from graphc.functions.random import random_normal as normal
from graphc.functions.random import random_poisson as poisson
from graphc.functions.random import random_shuffle as shuffle
from graphc.functions.random import random_uniform as uniform
from graphc.functions.stateless import stateless_random_normal as stateless_normal
from graphc.functions.stateless import stateless_random_uniform as stateless_uniform
from graphc.functions.stateless import stateless_truncated_normal
