"""Whether what was exported computes what the model computes."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.export import params as params_io
from hmr_jax.export.stablehlo import Predict, load_exported

ABSOLUTE, RELATIVE = 1e-4, 1e-5
"""By how much a program's numbers (metres, ...) may differ from the model's."""
NUDGES = (1e-5, -1e-5, 1e-6)
_STEADY = 0.5
# Half precision keeps 8 (bfloat16) or 11 bits.
_ROUNDING = {None: 0.0, "float32": 0.0, "float16": 1e-3, "bfloat16": 1e-2}


class Verified(NamedTuple):
    """What a comparison showed.

    Attributes:
        largest: difference, over everything that was compared.
        steady: for each output the number of samples in which it was compared.
        samples: number of samples.
    """

    largest: float
    steady: dict[str, int]
    samples: int


def verify_params(
    path: str | os.PathLike, variables: Mapping[str, Any], dtype: str | None
) -> int:
    """Read parameters back and compare them with the model's.

    Args:
        path: a file of ``save_params``.
        variables: the model's.
        dtype: that they were written in; None for their own.

    Returns:
        The number of arrays, all equal.

    Raises:
        UserError: naming the first array that differs by more than the type's rounding.
    """
    found = params_io.load_params(path, template=variables)

    def compare(key, ours, theirs):
        slack = 1e-7 if dtype else 0.0
        if not np.allclose(ours, theirs, rtol=_ROUNDING[dtype], atol=slack):
            name = jax.tree_util.keystr(key, simple=True, separator=".")
            raise UserError(f"{path}: {name} differs from the model")

    jax.tree_util.tree_map_with_path(compare, variables, found)
    return len(jax.tree.leaves(found))


def verify_program(
    path: str | os.PathLike,
    predict: Predict,
    variables: Mapping[str, Any],
    body: BodyModel,
    inputs: Mapping[str, Any],
) -> Verified:
    """Run an exported program beside the model, on one sample and on all.

    The tolerance is fixed. A network that has hardly learnt puts joints on one another,
    where a rotation is undetermined and rounding decides: there two right programs
    differ by metres, and nothing can be compared. So an output of a sample counts where
    the model's own stays the same while its picture changes by little more than
    rounding, and every output must count in some sample.

    Args:
        path: a folder of ``export_program``.
        predict: the model's.
        variables: the model's.
        body: the body.
        inputs: of some samples, ``image`` among them.

    Returns:
        What was compared.

    Raises:
        UserError: the weights differ, an output differs, or an output is steady in no
            sample.
    """
    program = load_exported(path, body=body)
    _compare_weights(path, program.weights, {"variables": variables, "body": body})
    model = jax.jit(predict)
    expected = model(variables, inputs, body)
    size = len(inputs["image"])
    moved = {name: np.zeros(size) for name in expected}
    for nudge in NUDGES:
        nudged = {**inputs, "image": inputs["image"] * np.float32(1.0 + nudge)}
        gaps = _gaps(expected, model(variables, nudged, body))
        moved = {name: np.maximum(moved[name], gaps[name]) for name in moved}
    steady = {name: moved[name] <= _STEADY for name in moved}
    largest = 0.0
    for count in (1, size):
        some = {name: value[-count:] for name, value in inputs.items()}
        found = _gaps({k: v[-count:] for k, v in expected.items()}, program(**some))
        for name, gap in found.items():
            counted = gap[steady[name][-count:]].max(initial=0.0)
            if counted > 1.0:
                raise UserError(
                    f"{path}: {name} differs from the model by {counted * ABSOLUTE:g} "
                    f"or more, expected at most {ABSOLUTE:g}"
                )
            largest = max(largest, counted * ABSOLUTE)
    _require_steady(path, steady, moved)
    return Verified(largest, {k: int(v.sum()) for k, v in steady.items()}, size)


def _require_steady(path, steady, moved) -> None:
    shaky = [name for name, where in steady.items() if not where.any()]
    if shaky:
        least = min(moved[name].min() for name in shaky) * ABSOLUTE
        raise UserError(
            f"{path}: cannot be verified: in all samples the model's own "
            f"{', '.join(shaky)} change by {least:g} or more when the picture changes "
            "by rounding, as those of a network that has hardly learnt; train it "
            "further, or choose another checkpoint"
        )


def _compare_weights(path, weights, tree) -> None:
    named = jax.tree_util.tree_leaves_with_path(tree)
    for (key, ours), theirs in zip(named, weights, strict=True):
        if not np.array_equal(ours, theirs, equal_nan=True):
            name = jax.tree_util.keystr(key, simple=True, separator=".")
            raise UserError(f"{path}: {name} differs from the model")


def _gaps(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Largest difference of each output and sample, in units of the tolerance."""
    gaps = {}
    for name, value in ours.items():
        a, b = np.asarray(value, np.float64), np.asarray(theirs[name], np.float64)
        gap = np.abs(a - b) / (ABSOLUTE + RELATIVE * np.abs(a))
        rows = gap.reshape(len(a), -1).max(1)
        gaps[name] = np.nan_to_num(rows, nan=np.inf, posinf=np.inf)
    return gaps
