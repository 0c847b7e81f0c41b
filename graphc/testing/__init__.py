"""To test ops and models, graphc's own and yours: equal values by stated tolerances, gradients by differences."""
from functools import partial

from graphc import test
from graphc.test import central_differences
from graphc.testing.compare import assert_equal_values, ulp_distance

check_gradients = partial(test.check_gradients, compiled=False)  # a compilation takes longer than many of the oracle's checks

__all__ = ["assert_equal_values", "central_differences", "check_gradients", "ulp_distance"]
