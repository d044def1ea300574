"""Parameters and programs out: npz, safetensors, StableHLO."""

from hmr_jax.export.params import load_params, read_metadata, save_params
from hmr_jax.export.stablehlo import (
    ExportedModel,
    export_program,
    load_exported,
)

__all__ = [
    "ExportedModel",
    "export_program",
    "load_exported",
    "load_params",
    "read_metadata",
    "save_params",
]
