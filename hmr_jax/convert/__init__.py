"""Reader of PyTorch checkpoints without PyTorch, key tables and strict merging."""

from hmr_jax.convert.checkpoints import (
    convert_checkpoint,
    load_backbone,
    to_torch_state_dict,
    with_backbone,
)
from hmr_jax.convert.torch_checkpoint import read_torch_checkpoint

__all__ = [
    "convert_checkpoint",
    "load_backbone",
    "read_torch_checkpoint",
    "to_torch_state_dict",
    "with_backbone",
]
