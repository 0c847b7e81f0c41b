"""`graphc.quantization`: numbers rounded as if stored in few bits, by the names of `tf.quantization`."""
# ruff: noqa: F401  (this file only hands names on)
from graphc.functions.quantization import (
    fake_quant_with_min_max_args,
    fake_quant_with_min_max_vars,
    fake_quant_with_min_max_vars_per_channel,
)
