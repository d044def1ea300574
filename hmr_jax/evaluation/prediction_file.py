"""Anybody's predictions, as a file, and how they meet the records they are of.

The file is an ``.npz`` with ``sample_id`` [N], the names of records, and arrays with
that first axis under the names of the protocols: ``joints_h36m_17_m`` [N, 17, 3],
``joints_smpl_24_m`` [N, 24, 3], ``vertices_m`` [N, V, 3]; metres, in any frame that
differs from the camera's by a translation.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from hmr_jax.body.joint_sets import map_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.body.npz import read_npz
from hmr_jax.errors import UserError
from hmr_jax.evaluation.evaluator import evaluate
from hmr_jax.evaluation.protocols import Protocol, get_protocol
from hmr_jax.evaluation.report import Report
from hmr_jax.evaluation.truth import target_vertices
from hmr_jax.files import atomic_write

IDS = "sample_id"


def read_predictions(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read and check a file of predictions.

    Args:
        path: ``.npz``.

    Returns:
        Its arrays, ``sample_id`` as text.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is none of predictions; the message names the array.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file of predictions")
    arrays = {k: v for k, v in read_npz(path).items() if isinstance(v, np.ndarray)}
    ids = arrays.get(IDS)
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "US":
        found = "none" if ids is None else f"{ids.dtype} {list(ids.shape)}"
        raise UserError(f"{path}: {IDS}: expected a list of texts [N], found {found}")
    if ids.dtype.kind == "S":
        ids = np.char.decode(ids, "utf-8")
    arrays[IDS] = ids
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise UserError(
            f"{path}: {IDS}: expected each record once, found "
            f"{str(values[counts.argmax()])!r} {counts.max()} times"
        )
    for name, array in arrays.items():
        if len(np.shape(array)) == 0 or len(array) != len(ids):
            raise UserError(
                f"{path}: {name}: expected {len(ids)} rows as {IDS} has, found shape "
                f"{list(np.shape(array))}"
            )
    return arrays


def write_predictions(
    path: str | os.PathLike, batches: Iterable[tuple[Sequence[str], Mapping[str, Any]]]
) -> int:
    """Write a file of predictions, whole or not at all.

    Args:
        path: ``.npz``.
        batches: names of records, and arrays with the same number of rows.

    Returns:
        The number of records.
    """
    ids: list[str] = []
    parts: dict[str, list[np.ndarray]] = {}
    for names, arrays in batches:
        ids += names
        for name, array in arrays.items():
            parts.setdefault(name, []).append(np.asarray(array))
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **{IDS: np.array(ids)}, **joined)
    return len(ids)


def truth_of(
    records: Sequence[Mapping[str, Any]], joint_set: str
) -> dict[str, np.ndarray]:
    """The labels of records, as systems' own evaluations have them.

    Args:
        records: decoded.
        joint_set: of the dataset's joints.

    Returns:
        ``joints_cam_m`` [B, 24, 4], ``joints_h36m_cam_m`` [B, 17, 4], ``has_smpl``
        [B, 1], ``pose_aa``, ``betas``.
    """
    index, present = map_joints(joint_set, "smpl_24")
    joints = np.stack([r["joints_cam_m"] * float(r["has_joints_3d"]) for r in records])
    stacked = {
        name: np.stack([record[name] for record in records])
        for name in ("joints_h36m_cam_m", "pose_aa", "betas")
    }
    has_smpl = np.array([[float(r["has_smpl"])] for r in records], np.float32)
    mapped = joints[:, index] * np.asarray(present)[None, :, None]
    return {"joints_cam_m": mapped.astype(np.float32), "has_smpl": has_smpl, **stacked}


def score_predictions(
    predictions: Mapping[str, np.ndarray],
    records: Iterable[Mapping[str, Any]],
    joint_set: str,
    protocols: Sequence[str | Protocol],
    body: BodyModel | None = None,
    *,
    labels_of: Any = None,
    batch_size: int = 64,
) -> Report:
    """Score predictions under named protocols.

    Args:
        predictions: of ``read_predictions``.
        records: all of the split that is scored, decoded.
        joint_set: of their joints.
        protocols: protocols or their names.
        body: poses the labelled meshes, where vertices are scored.
        labels_of: record to its labels, by which protocols report groups.
        batch_size: records at once.

    Returns:
        A report, exactly that of a system which predicts these arrays in batches of
        that size.

    Raises:
        UserError: a record without a prediction, or an array that a protocol needs and
            that is missing or of another shape.
    """
    chosen = [get_protocol(p) if isinstance(p, str) else p for p in protocols]
    place = {name: row for row, name in enumerate(predictions[IDS].tolist())}
    meshes = any(p.joint_set == "vertices" for p in chosen)
    if meshes and body is not None and "vertices_m" in predictions:
        found = predictions["vertices_m"].shape[1:]
        if found != (body.num_vertices, 3):
            raise UserError(
                f"vertices_m: expected [N, {body.num_vertices}, 3] as the body has, "
                f"found {[len(place), *found]}"
            )
    pose = jax.jit(target_vertices)
    used = 0

    def batches() -> Iterator[dict[str, Any]]:
        nonlocal used
        for rows in _grouped(records, batch_size):
            # As evaluations pad their last batch: rounding may depend on its size.
            filled = rows + [rows[-1]] * (batch_size - len(rows))
            batch: dict[str, Any] = dict(truth_of(filled, joint_set))
            batch["names"] = [record["sample_id"] for record in filled]
            batch["labels"] = [labels_of(r) if labels_of else {} for r in filled]
            batch["valid"] = (np.arange(batch_size) < len(rows)).astype(np.float32)
            names = batch["names"][: len(rows)]
            missing = [name for name in names if name not in place]
            if missing:
                raise UserError(
                    f"{IDS}: expected a prediction for every record, found none for "
                    f"{missing[0]!r} ({len(missing)} of the {len(rows)} records from "
                    f"record {used} on)"
                )
            used += len(rows)
            yield batch

    def predict(batch: Mapping[str, Any]) -> dict[str, Any]:
        rows = [place[name] for name in batch["names"]]
        out = {k: v[rows] for k, v in predictions.items() if k != IDS}
        if meshes and body is not None:
            fields = ("pose_aa", "betas", "joints_h36m_cam_m")
            truth = pose(*(batch[name] for name in fields), body)
            out["target_vertices_m"] = np.asarray(truth)
        return out

    def labels(batch: Mapping[str, Any]) -> dict[str, list[str]]:
        names = sorted(set().union(*batch["labels"]))
        return {n: [one.get(n, "") for one in batch["labels"]] for n in names}

    report = evaluate(
        predict,
        batches(),
        chosen,
        labels_fn=labels,
        names_fn=lambda batch: batch["names"],
    )
    if used < len(place):
        logging.warning(
            "%d of %d predictions are of no record of this split", len(place) - used,
            len(place),
        )  # fmt: skip
    return report


def _grouped(records: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rows: list[Any] = []
    for record in records:
        rows.append(record)
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows
