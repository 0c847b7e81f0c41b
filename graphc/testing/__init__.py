"""To test ops and models, graphc's own and yours: equal values by stated tolerances, gradients by differences."""
from graphc.testing.compare import assert_equal_values, ulp_distance
from graphc.testing.gradients import central_differences, check_gradients

__all__ = ["assert_equal_values", "central_differences", "check_gradients", "ulp_distance"]
