"""Labels as their owners publish them, turned into the fields of a record."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.builders import picture_files
from data_pipelines.builders.published_dataset import PublishedDataset
from data_pipelines.schema import Record
from hmr_jax.body.genders import gender_of_code
from hmr_jax.body.joint_sets import JOINT_SETS, get_joint_set


def with_validity(points: np.ndarray, valid: Any = 1.0) -> np.ndarray:
    """Points [..., J, C] with a last column of validity or visibility."""
    valid = np.broadcast_to(np.asarray(valid, np.float64), points.shape[:-1])
    return np.concatenate([points, valid[..., None]], axis=-1)


def numbers(
    source: PublishedDataset, where: str, value: Any, shape: tuple[int, ...]
) -> np.ndarray:
    """A list of the JSON as an array.

    Args:
        source: names the dataset in the error.
        where: file and field.
        value: nested lists; a flat one of the same size also counts.
        shape: expected.

    Returns:
        float64.

    Raises:
        RecordError: another size, or no numbers.
    """
    try:
        array = np.asarray(value, np.float64)
        return array.reshape(shape)
    except (TypeError, ValueError) as error:
        found = f"shape {list(np.shape(value))}" if is_regular(value) else str(error)
        expected = f"numbers of shape {list(shape)}"
        raise source.wrong(where, expected, found) from error


def is_regular(value: Any) -> bool:
    """Whether nested lists of numbers have one length at each depth."""
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:
        return False


def compact(value: Any) -> Any:
    """Lists of numbers as arrays, at any depth of dictionaries."""
    if isinstance(value, dict):
        return {name: compact(inner) for name, inner in value.items()}
    whole = isinstance(value, list) and is_regular(value)
    return np.asarray(value, np.float64) if whole else value


def gender_of(source: PublishedDataset, where: str, code: Any) -> str:
    """A body's gender as records name it.

    Args:
        source: names the dataset in the error.
        where: file and entry.
        code: male, female or neutral, or its first letter, in any case; text, bytes or
            an array of one.

    Raises:
        RecordError: another code.
    """
    gender = gender_of_code(code)
    if gender is None:
        raise source.wrong(where, "m, f, n, male, female or neutral", repr(code))
    return gender


def mask_png(pixels: np.ndarray) -> bytes:
    """A mask [H, W] of truth values as the record's PNG of one channel."""
    return picture_files.png(pixels.astype(np.uint8) * 255)


def smpl_fields(source: PublishedDataset, where: str, fit: Mapping[str, Any]) -> Record:
    """Published ``pose``, ``shape`` and ``trans`` (metres, camera) as fields.

    Args:
        source: names the dataset in errors; its spec gives the number of rotations.
        where: file and entry.
        fit: the published parameters.
    """
    source.require(where, fit, ("pose", "shape", "trans"))
    joints = source.spec.num_pose_joints
    return {
        "pose_aa": numbers(source, f"{where}: pose", fit["pose"], (joints, 3)),
        "betas": numbers(source, f"{where}: shape", fit["shape"], (10,)),
        "translation_m": numbers(source, f"{where}: trans", fit["trans"], (3,)),
        "gender": gender_of(source, f"{where}: gender", fit.get("gender", "neutral")),
    }


def twist_fields(
    source: PublishedDataset, where: str, twist: Mapping[str, Any]
) -> Record:
    """HybrIK's ``angle_twist``: -999 marks bones whose twist is not known.

    Args:
        source: names the dataset in errors.
        where: file and entry.
        twist: ``angle``, ``cos`` and ``sin``, 23 numbers each.
    """
    source.require(where, twist, ("angle", "cos", "sin"))
    angle, cosine, sine = (
        numbers(source, f"{where}: {name}", twist[name], (23,))
        for name in ("angle", "cos", "sin")
    )
    weight = (angle > -10).astype(np.float64)
    return {
        "twist_cos_sin": np.stack([cosine, sine], axis=-1) * weight[:, None],
        "twist_weight": weight,
    }


def select_joints(
    points: np.ndarray,
    source_set: str,
    target_set: str,
    names: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Points of one joint set in the order of another, by name.

    Args:
        points: [..., S, C], last column validity or visibility.
        source_set: their joint set.
        target_set: wanted.
        names: target name -> source name where they differ.

    Returns:
        [..., T, C]; zeros where the source has no such joint.
    """
    found = JOINT_SETS[source_set].joints
    names = names or {}
    wanted = [names.get(name, name) for name in get_joint_set(target_set).joints]
    index = np.array([found.index(n) if n in found else -1 for n in wanted])
    return points[..., index, :] * (index >= 0)[:, None]


def consecutive(names: Sequence[Any]) -> Iterator[tuple[Any, range]]:
    """Runs of equal neighbours: their value and their range."""
    start = 0
    for end in range(1, len(names) + 1):
        if end == len(names) or names[end] != names[start]:
            yield names[start], range(start, end)
            start = end
