"""`graphc.math`: the functions of `tf.math`."""
# ruff: noqa: F401, I001  (this file only hands names on)
from graphc.functions.math import (
    abs, accumulate_n, acos, acosh, add, add_n, approximate_equal, asin, asinh, atan, atan2, atanh, ceil, cos, cosh, div_no_nan,
    exp2, log2, log10,
    divide, equal, erf, erfc, exp, expm1, floor, floordiv, floormod, greater, greater_equal, is_finite, is_inf,
    is_nan, less, less_equal, log, log1p, log_sigmoid, logaddexp, logical_and, logical_not, logical_or, logical_xor,
    maximum, minimum, mod, multiply, multiply_no_nan, negative, nextafter, not_equal, pow, realdiv, reciprocal,
    reciprocal_no_nan, rint, round, rsqrt, sigmoid,
    sign, sin, sinh, sqrt, square, squared_difference, subtract, tan, tanh, truediv, trunc, truncatediv, xdivy,
    xlogy,
)
from graphc.functions.reduce import (
    argmax, argmin, count_nonzero, reduce_all, reduce_any, reduce_euclidean_norm, reduce_logsumexp, reduce_max,
    reduce_mean, reduce_min, reduce_prod, reduce_std, reduce_sum, reduce_variance,
)
from graphc.functions.special import (
    bessel_i0, bessel_i0e, bessel_i1, bessel_i1e, betainc, digamma, erfcinv, erfcx, erfinv, igamma, igammac, lbeta, lgamma,
    log_ndtr, logit, ndtr, ndtri, polygamma, xlog1py, zeta,
)
from graphc.functions.running import cummax, cummin, cumprod, cumsum, cumulative_logsumexp, invert_permutation, top_k
from graphc.functions.segments import (
    bincount, confusion_matrix, segment_max, segment_mean, segment_min, segment_prod, segment_sum, unsorted_segment_max,
    unsorted_segment_mean, unsorted_segment_min, unsorted_segment_prod, unsorted_segment_sqrt_n, unsorted_segment_sum,
)
from graphc.nn import in_top_k, l2_normalize, log_softmax, softmax, softplus, softsign, zero_fraction
from graphc import special
