"""graphc: a static-graph compiler with just-in-time code generation, used through TensorFlow 1's names.

    import graphc as tf

Importing graphc imports neither Numba nor llvmlite; they come with the first run.
"""
# ruff: noqa: F401, I001  (this file only hands names on; one name a line would make it a page of its own)
from graphc import bitwise, contrib, data, dtypes, errors, image, initializers, linalg, losses, math, mixed_precision, nn
from graphc import quantization, random, train
from graphc.config import options
from graphc.control import (
    GraphKeys,
    add_to_collection,
    assign,
    assign_add,
    assign_sub,
    control_dependencies,
    device,
    get_collection,
    global_variables,
    global_variables_initializer,
    group,
    local_variables,
    local_variables_initializer,
    name_scope,
    no_op,
    trainable_variables,
    variables_initializer,
)
from graphc.control import tuple_ as tuple
from graphc.averages import moving_average_variables
from graphc.functions.arrays import (
    broadcast_to, concat, constant, convert_to_tensor, expand_dims, eye, fill,
    matrix_transpose, one_hot, ones, ones_like, pack, pad, rank, reshape, reverse,
    reverse_v2, shape, size, slice, split, squeeze, stack, strided_slice, tile, transpose, unpack, unstack,
    zeros, zeros_like,
)
from graphc.functions.arrays import concat as concat_v2
from graphc.functions.control_flow import case, cond, foldl, foldr, map_fn, scan, while_loop
from graphc.functions.custom import custom_gradient, grad_pass_through, recompute_grad
from graphc.functions.derivatives import (
    batch_jacobian, hessian, hessian_vector_product, hessians, jacobian, jacobian_vector_product,
)
from graphc.functions.diagonals import (
    diag, diag_part, matrix_band_part, matrix_diag, matrix_diag_part, matrix_set_diag,
)
from graphc.functions.gathering import (
    batch_gather, embedding_lookup, gather, gather_nd, scatter_add, scatter_div, scatter_max, scatter_min, scatter_mul,
    scatter_nd, scatter_nd_add, scatter_nd_sub, scatter_nd_update, scatter_sub, scatter_update,
    tensor_scatter_add, tensor_scatter_max, tensor_scatter_min, tensor_scatter_sub, tensor_scatter_update,
)
from graphc.functions.grids import (
    batch_to_space, batch_to_space_nd, broadcast_static_shape, depth_to_space, meshgrid, parallel_stack,
    reverse_sequence, roll, sequence_mask, space_to_batch, space_to_batch_nd, space_to_depth,
)
from graphc.functions.linalg import (
    batch_matmul, dot, einsum, matmul, matvec, outer, tensordot, trace,
)
from graphc.functions.lines import edit_distance
from graphc.functions.math import (
    abs, accumulate_n, acos, acosh, add, add_n, approximate_equal, asin, asinh, atan, atan2, atanh, bitcast, bitwise_and,
    bitwise_or, bitwise_xor, cast, ceil, check_numerics, clip_by_average_norm, clip_by_global_norm,
    clip_by_norm, clip_by_value, cos, cosh, div,
    div_no_nan, divide, equal, erf, erfc, exp, expm1, floor, floordiv, floormod, global_norm, greater,
    greater_equal, identity, invert, is_finite, is_inf, is_nan, left_shift, less, less_equal, log, log1p,
    log_sigmoid, logical_and, logical_not, logical_or, logical_xor, maximum, minimum, mod, multiply, negative,
    not_equal, pow, realdiv, reciprocal, right_shift, rint, round, rsqrt, safe_where, saturate_cast, sigmoid, sign, sin,
    sinh, sqrt, square, squared_difference, stop_gradient, subtract, tan, tanh, to_bfloat16, to_double, to_float, to_int32,
    to_int64, truediv, trunc, truncatediv, where, where_v2, xdivy, xlogy,
)
from graphc.functions.quantization import (
    fake_quant_with_min_max_args, fake_quant_with_min_max_vars, fake_quant_with_min_max_vars_per_channel,
)
from graphc.functions.overrides import RegisterGradient
from graphc.functions.python import Assert, Print, numpy_function, py_func
from graphc.functions.matrices import (
    cholesky, cholesky_solve, cross, matrix_determinant, matrix_inverse, matrix_solve, matrix_solve_ls,
    matrix_triangular_solve, norm, qr, self_adjoint_eig, self_adjoint_eigvals, svd,
)
from graphc.functions.random import (
    multinomial, random_crop, random_gamma, random_normal, random_poisson, random_shuffle, random_uniform,
    set_random_seed, truncated_normal,
)
from graphc.functions.ranges import lin_space, linspace, range
from graphc.functions.reduce import (
    arg_max, arg_min, argmax, argmin, count_nonzero, reduce_all, reduce_any, reduce_euclidean_norm,
    reduce_logsumexp, reduce_max, reduce_mean, reduce_min, reduce_prod, reduce_std, reduce_sum, reduce_variance,
)
from graphc.functions.running import (
    argsort, cummax, cummin, cumprod, cumsum, cumulative_logsumexp, invert_permutation, searchsorted, sort,
)
from graphc.functions.segments import (
    bincount, confusion_matrix, histogram_fixed_width, histogram_fixed_width_bins, segment_max, segment_mean,
    segment_min, segment_prod, segment_sum, unsorted_segment_max, unsorted_segment_mean, unsorted_segment_min,
    unsorted_segment_prod, unsorted_segment_sqrt_n, unsorted_segment_sum,
)
from graphc.functions.selection import (
    boolean_mask, dynamic_partition, dynamic_stitch, setdiff1d, unique, unique_with_counts,
)
from graphc.functions.sparse import SparseTensor, SparseTensorValue, sparse_placeholder, sparse_tensor_to_dense
from graphc.functions.stateless import (
    stateless_random_normal, stateless_random_uniform, stateless_truncated_normal,
)
from graphc.functions.special import betainc, digamma, erfinv, igamma, igammac, lbeta, lgamma, ndtri, polygamma, zeta
from graphc.initializers import (
    constant_initializer, glorot_normal_initializer, glorot_uniform_initializer, ones_initializer,
    random_normal_initializer, random_uniform_initializer, truncated_normal_initializer,
    variance_scaling_initializer, zeros_initializer,
)
from graphc.ir.container import Graph, get_default_graph, reset_default_graph
from graphc.ir.node import Node as Tensor
from graphc.ir.node import TensorShape
from graphc.ir.types import (
    DType, as_dtype, bfloat16, double, float16, float32, float64, half, int8, int16, int32, int64, uint8, uint16, uint32,
    uint64,
)
from graphc.ir.types import bool_ as bool
from graphc.ops.grad import AggregationMethod, UnconnectedGradients, gradients
from graphc.placeholders import placeholder, placeholder_with_default
from graphc.scopes import AUTO_REUSE, VariableScope, get_variable, get_variable_scope, variable_scope
from graphc.slices import IndexedSlices
from graphc.session import InteractiveSession, Session, get_default_session, num_threads, set_num_threads
from graphc.variable import Variable

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "test":  # only when asked for: it needs unittest
        import graphc.test
        return graphc.test
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")
