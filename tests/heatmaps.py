"""Heat maps that tests can compare what follows them by."""

from typing import Any

import numpy as np


def spread_out(variables: Any) -> Any:
    """IKOL's variables with heat maps that have peaks, each joint's in another place.

    An untrained network, or one after a few steps, leaves the joints in a heap, where
    the layer's answer is decided by rounding and there is nothing to compare.

    Args:
        variables: host arrays of an ``IkolNet``.

    Returns:
        The same with another kernel of the heat maps.
    """
    params = variables["params"]
    final = params["final_layer"]
    kernel = np.random.default_rng(0).standard_normal(final["kernel"].shape)
    final = {**final, "kernel": (2.0 * kernel).astype(np.float32)}
    return {**variables, "params": {**params, "final_layer": final}}
