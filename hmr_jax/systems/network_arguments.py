"""Arguments of a network from a config's ``model`` section."""

from typing import Any

import jax.numpy as jnp

from hmr_jax.errors import UserError
from hmr_jax.nn.resnet import VARIANTS
from hmr_jax.systems.system import DEVICE_AXIS


def network_values(config: Any) -> dict[str, Any]:
    """What every network with a ResNet takes from its config.

    Args:
        config: a whole experiment.

    Returns:
        The section's fields, ``dtype`` as a type, and ``axis_name`` in place of
        ``sync_batch_norm``: statistics are those of all devices, or of each alone.

    Raises:
        UserError: an unknown type or depth.
    """
    values = dict(config["model"])
    sync = values.pop("sync_batch_norm")
    values["axis_name"] = DEVICE_AXIS if sync else None
    if values["dtype"] not in ("float32", "bfloat16"):
        raise UserError(
            "config.model.dtype: expected float32 or bfloat16, "
            f"found {values['dtype']!r}"
        )
    values["dtype"] = jnp.dtype(values["dtype"])
    if values["depth"] not in VARIANTS:
        raise UserError(
            f"config.model.depth: expected one of {list(VARIANTS)}, "
            f"found {values['depth']}"
        )
    return values
