"""graphc: a static-graph compiler with just-in-time code generation, used through TensorFlow 1's names.

    import graphc as tf

Importing graphc imports neither Numba nor llvmlite; they come with the first run.
"""
from graphc import errors, losses, nn, train
from graphc.config import options
from graphc.control import (
    GraphKeys,
    add_to_collection,
    assign,
    assign_add,
    assign_sub,
    control_dependencies,
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
from graphc.functions.arrays import *
from graphc.functions.linalg import *
from graphc.functions.math import *
from graphc.functions.random import *
from graphc.functions.reduce import *
from graphc.ir.container import Graph, get_default_graph, reset_default_graph
from graphc.ir.node import Node as Tensor
from graphc.ir.node import TensorShape
from graphc.ir.types import DType, as_dtype, float32, float64, int32, int64, uint8
from graphc.ir.types import bool_ as bool
from graphc.ops.grad import gradients
from graphc.placeholders import placeholder, placeholder_with_default
from graphc.session import InteractiveSession, Session, get_default_session
from graphc.variable import Variable

__version__ = "0.1.0"
