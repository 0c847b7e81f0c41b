"""Initial values of variables: objects that are called with a shape and a dtype and give a tensor, as in TensorFlow 1."""
from __future__ import annotations

import math

import numpy as np

from graphc.errors import ArgumentError, DTypeError, report
from graphc.functions.arrays import constant, fill
from graphc.functions.random import random_normal, random_uniform, truncated_normal
from graphc.ir.node import Node
from graphc.ir.types import DType, as_dtype, as_shape, float32

TRUNCATED_SCALE = 0.87962566103423978  # standard deviation of a normal number cut at two standard deviations


class Initializer:
    """Base of all initializers. `dtype` is used when the call names none."""

    dtype: DType = float32

    def __call__(self, shape, dtype=None, partition_info=None) -> Node:
        """A tensor of the shape."""
        wanted = as_dtype(dtype) if dtype is not None else self.dtype
        sizes = as_shape(shape)
        if any(not isinstance(d, int) for d in sizes):
            raise report(ArgumentError, f"{type(self).__name__}: the shape must be numbers, not {list(sizes)}")
        return self._value(tuple(int(d) for d in sizes), wanted)

    def _value(self, shape: tuple[int, ...], dtype: DType) -> Node:
        raise NotImplementedError(f"{type(self).__name__} must say what its values are")

    def _floats(self, dtype: DType) -> None:
        if not dtype.is_floating:
            raise report(DTypeError, f"{type(self).__name__}: there are no {dtype.name} numbers of this kind",
                         rule="the dtype is float32 or float64")


class Zeros(Initializer):
    """Zeros; False for bool."""

    def __init__(self, dtype=float32):
        self.dtype = as_dtype(dtype)

    def _value(self, shape, dtype):
        return fill(shape, np.zeros((), dtype.numpy))


class Ones(Zeros):
    """Ones; True for bool."""

    def _value(self, shape, dtype):
        return fill(shape, np.ones((), dtype.numpy))


class Constant(Initializer):
    """One number, or the elements of a list or array in order; if there are too few, the last one fills the rest."""

    def __init__(self, value=0, dtype=float32, verify_shape: bool = False):
        self.value, self.dtype, self.verify = value, as_dtype(dtype), verify_shape

    def _value(self, shape, dtype):
        if np.ndim(self.value) == 0:
            return fill(shape, constant(self.value, dtype))
        return constant(self.value, dtype, shape, verify_shape=self.verify)


class RandomNormal(Initializer):
    """Normal numbers."""

    sample = staticmethod(random_normal)

    def __init__(self, mean=0.0, stddev=1.0, seed=None, dtype=float32):
        self.mean, self.stddev, self.seed, self.dtype = mean, stddev, seed, as_dtype(dtype)

    def _value(self, shape, dtype):
        self._floats(dtype)
        return self.sample(shape, self.mean, self.stddev, dtype, self.seed)


class TruncatedNormal(RandomNormal):
    """Normal numbers within two standard deviations."""

    sample = staticmethod(truncated_normal)


class RandomUniform(Initializer):
    """Uniform numbers in [minval, maxval)."""

    def __init__(self, minval=0, maxval=None, seed=None, dtype=float32):
        self.minval, self.maxval, self.seed, self.dtype = minval, maxval, seed, as_dtype(dtype)

    def _value(self, shape, dtype):
        return random_uniform(shape, self.minval, self.maxval, dtype, self.seed)


class VarianceScaling(Initializer):
    """Random numbers of variance scale / n, where n is the number of inputs ("fan_in"), of outputs ("fan_out") or their mean
    ("fan_avg") of a layer whose weights have this shape. `distribution` is "truncated_normal" ("normal" means the same),
    "untruncated_normal" or "uniform".
    """

    MODES = ("fan_in", "fan_out", "fan_avg")
    DISTRIBUTIONS = ("truncated_normal", "normal", "untruncated_normal", "uniform")

    def __init__(self, scale=1.0, mode="fan_in", distribution="truncated_normal", seed=None, dtype=float32):
        if scale <= 0:
            raise report(ArgumentError, f"variance_scaling_initializer: scale must be positive, not {scale}")
        for what, value, known in (("mode", mode, self.MODES), ("distribution", distribution, self.DISTRIBUTIONS)):
            if str(value).lower() not in known:
                raise report(ArgumentError, f"variance_scaling_initializer: {what}={value!r}",
                             rule=f"it is one of {', '.join(known)}")
        self.scale, self.mode, self.distribution = scale, mode.lower(), distribution.lower()
        self.seed, self.dtype = seed, as_dtype(dtype)

    def _value(self, shape, dtype):
        self._floats(dtype)
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return random_uniform(shape, -limit, limit, dtype, self.seed)
        if self.distribution == "untruncated_normal":
            return random_normal(shape, 0.0, math.sqrt(variance), dtype, self.seed)
        return truncated_normal(shape, 0.0, math.sqrt(variance) / TRUNCATED_SCALE, dtype, self.seed)


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """How many inputs and outputs a unit has in a layer with weights of this shape: (spatial..., in, out)."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


class GlorotUniform(VarianceScaling):
    """Uniform of variance 2 / (inputs + outputs) (Glorot and Bengio, 2010); also called Xavier."""

    def __init__(self, seed=None, dtype=float32):
        super().__init__(1.0, "fan_avg", "uniform", seed, dtype)


class GlorotNormal(VarianceScaling):
    """Truncated normal of variance 2 / (inputs + outputs) (Glorot and Bengio, 2010)."""

    def __init__(self, seed=None, dtype=float32):
        super().__init__(1.0, "fan_avg", "truncated_normal", seed, dtype)


def he_normal(seed=None) -> VarianceScaling:
    """Truncated normal of variance 2 / inputs (He et al., 2015)."""
    return VarianceScaling(2.0, "fan_in", "truncated_normal", seed)


def he_uniform(seed=None) -> VarianceScaling:
    """Uniform of variance 2 / inputs (He et al., 2015)."""
    return VarianceScaling(2.0, "fan_in", "uniform", seed)


def lecun_normal(seed=None) -> VarianceScaling:
    """Truncated normal of variance 1 / inputs (LeCun et al., 1998)."""
    return VarianceScaling(1.0, "fan_in", "truncated_normal", seed)


def lecun_uniform(seed=None) -> VarianceScaling:
    """Uniform of variance 1 / inputs (LeCun et al., 1998)."""
    return VarianceScaling(1.0, "fan_in", "uniform", seed)


def xavier_initializer(uniform: bool = True, seed=None, dtype=float32) -> VarianceScaling:
    """Glorot's initializer, uniform or normal, as `tf.contrib.layers` calls it."""
    return GlorotUniform(seed, dtype) if uniform else GlorotNormal(seed, dtype)


def contrib_variance_scaling(factor=2.0, mode="FAN_IN", uniform: bool = False, seed=None, dtype=float32) -> VarianceScaling:
    """`tf.contrib.layers.variance_scaling_initializer`: variance factor / n, by default that of He et al. (2015)."""
    return VarianceScaling(factor, mode, "uniform" if uniform else "truncated_normal", seed, dtype)


zeros_initializer, ones_initializer, constant_initializer = Zeros, Ones, Constant
zeros, ones = Zeros, Ones
random_normal_initializer, truncated_normal_initializer = RandomNormal, TruncatedNormal
random_uniform_initializer, variance_scaling_initializer = RandomUniform, VarianceScaling
variance_scaling = VarianceScaling
glorot_uniform_initializer = glorot_uniform = GlorotUniform
glorot_normal_initializer = glorot_normal = GlorotNormal
