"""Evaluation of body distributions on 3DPW and SSP-3D: inputs, truths, silhouettes.

Crops, joints, silhouettes and errors in the picture are those of a crop of 256 pixels,
whatever size the network was trained with.
Source: specs/hierprob.md sections 13 and 14.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from hmr_jax.body.forward import body_forward
from hmr_jax.body.landmarks import lsp_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.geometry.cameras import to_camera_axes, weak_perspective_project
from hmr_jax.geometry.rotations import axis_angle_to_matrix
from hmr_jax.nn.proxy import resized_representation
from hmr_jax.render.rasterize import rasterize
from hmr_jax.systems.hierprob import scores
from hmr_jax.systems.hierprob.metrics import IMAGE_SIZE_PX, METRES_NAMES, pixels_of_norm

SIZE_PX = int(IMAGE_SIZE_PX)
NUM_SAMPLES = 10
"""Samples per picture of the published numbers."""
GENDERS = ("neutral", "male", "female")
_PW3D = tuple(name for name in METRES_NAMES if name != "PVE-T")


class DatasetRules(NamedTuple):
    """What is published of a dataset.

    Attributes:
        crop: its name among the published crops.
        metrics: names that are reported.
        in_picture: joints and silhouettes are compared in the picture, for samples too;
            else the samples are compared in space.
    """

    crop: str
    metrics: tuple[str, ...]
    in_picture: bool


RULES = {
    "pw3d_hierprob": DatasetRules(
        "pw3d", (*_PW3D, *(f"{name}_samples_min" for name in _PW3D)), False
    ),
    "ssp_3d": DatasetRules(
        "ssp_3d",
        (
            *("PVE-PA", "PVE-T-SC", "silhouette-IOU", "joints2D-L2E"),
            *("joints2Dsamples-L2E", "silhouettesamples-IOU"),
        ),
        True,
    ),
}


def rules_of(name: str) -> DatasetRules:
    """The rules of a dataset.

    Args:
        name: of its records.

    Raises:
        UserError: it is not evaluated.
    """
    if name not in RULES:
        raise UserError(
            f"config.eval.source: expected synthetic or one of {sorted(RULES)}, "
            f"found {name!r}"
        )
    return RULES[name]


def network_input(
    images: Float[Array, "batch 256 256 3"],
    keypoints_px: Float[Array, "batch 17 3"],
    size_px: int = SIZE_PX,
) -> Float[Array, "batch rows columns channels"]:
    """The proxy representation of crops.

    Args:
        images: RGB in [0, 1].
        keypoints_px: (x, y, confidence) in the crop, rounded already. A joint without
            confidence, or one that is not finite, leaves no heatmap.
        size_px: side of what the network was trained with; the crop is made smaller
            first, and the heatmaps with it.

    Returns:
        Maps of ``nn.proxy``.

    Note: the original also marks joints of confidence zero, in the crop's corner.
    """
    joints, certain = keypoints_px[..., :2], keypoints_px[..., 2] > 0
    return resized_representation(images, joints, certain, size_px)[2]


@jax.jit
def posed_truth(
    body: BodyModel,
    pose_aa: Float[Array, "batch joints 3"],
    betas: Float[Array, "batch betas"],
) -> scores.Fields:
    """The labelled bodies under the names of ``metrics.hierprob``.

    Args:
        body: of the label's gender.
        pose_aa: radians; the root is in camera axes, x right, y down.
        betas: shape.

    Returns:
        ``vertices_m``, y up: the root is turned by half a turn about x;
        ``zero_pose_vertices_m`` and, where the body has ``h36m_17``, ``joints3d_m``.
    """
    rotmats = axis_angle_to_matrix(pose_aa)
    half_turn = jnp.array([1, -1, -1], rotmats.dtype)[None, :, None]
    rotmats = rotmats.at[:, 0].multiply(half_turn)
    vertices = body_forward(body, betas, rotmats).vertices_m
    fields = {
        "vertices_m": vertices,
        "zero_pose_vertices_m": body_forward(
            body, betas, jnp.zeros_like(pose_aa)
        ).vertices_m,
    }
    if "h36m_17" in body.extra_joint_regressors:
        fields["joints3d_m"] = lsp_joints(body, vertices)
    return fields


def gendered_truth(
    bodies: Mapping[str, BodyModel], batch: Mapping[str, Any]
) -> scores.Fields:
    """The truth of a batch, each person with the body of the labelled gender.

    Args:
        bodies: for all of ``GENDERS``; several may be the same object. All have the
            same vertices.
        batch: ``gender`` [B] as places in ``GENDERS``, ``pose_aa`` [B, 24, 3] radians
            with the root in camera axes, ``betas`` [B, betas].

    Returns:
        Fields of ``posed_truth``.
    """
    gender = np.asarray(batch["gender"])
    pose, betas = jnp.asarray(batch["pose_aa"]), jnp.asarray(batch["betas"])
    first = bodies[GENDERS[0]]
    places = {index: bodies[GENDERS[index]] for index in set(gender.tolist())}
    truth: scores.Fields = {}
    for body in {id(body): body for body in places.values()}.values():
        mine = [index for index, other in places.items() if other is body]
        chosen = jnp.asarray(np.isin(gender, mine))[:, None, None]
        for name, values in posed_truth(body, pose, betas).items():
            before = truth.get(name, jnp.zeros_like(values))
            truth[name] = jnp.where(chosen, values, before)
    if "h36m_17" not in first.extra_joint_regressors:
        truth.pop("joints3d_m", None)
    return truth


def silhouettes(
    vertices_m: Float[Array, "batch bodies verts 3"],
    faces: Int[Array, "faces 3"],
    camera: Float[Array, "batch 3"],
    size_px: int = SIZE_PX,
) -> Bool[Array, "batch bodies rows columns"]:
    """Pixels that bodies cover under their picture's weak-perspective camera.

    Args:
        vertices_m: y up, metres; all bodies of a picture have its camera.
        faces: vertex indices.
        camera: scale, tx, ty; the scale multiplies the shifted points.
        size_px: side of the picture; pixel (i, j) is covered where its centre,
            (j + 1/2, i + 1/2), is.

    Source: specs/hierprob.md sections 11.3 and 14.
    """
    batch, bodies = vertices_m.shape[:2]
    cameras = jnp.broadcast_to(camera[:, None], (batch, bodies, 3))
    flat = weak_perspective_project(
        to_camera_axes(vertices_m), cameras[..., 0], cameras[..., 1:]
    )
    places = pixels_of_norm(flat, float(size_px)) - 0.5
    # What covers a pixel does not depend on which face is nearest.
    screen = jnp.concatenate([places, jnp.ones_like(places[..., :1])], -1)

    def covered(one):
        return rasterize(one, faces, size_px, size_px).face >= 0

    masks = jax.lax.map(covered, screen.reshape(batch * bodies, -1, 3))
    return masks.reshape(batch, bodies, size_px, size_px)


def predict_frames(
    keys: Key[Array, " batch"],
    raw: Mapping[str, Array],
    body: BodyModel,
    num_samples: int,
    *,
    in_picture: bool,
) -> scores.Prediction:
    """Bodies and samples of frames, the mode in place of each frame's first sample.

    Args:
        keys: random key of each frame; its samples depend on nothing else.
        raw: output of ``HierProbNet``.
        body: the predicted body.
        num_samples: bodies per frame; 0 for none.
        in_picture: with ``silhouette`` of mode and samples.

    Returns:
        The prediction. Joints in the picture keep the genuine first sample.
    """

    def of_one(key, one):
        rows = {name: value[None] for name, value in one.items()}
        found = scores.predict(key, rows, body, num_samples)
        return found._replace(samples={k: v[0] for k, v in found.samples.items()})

    drawn = jax.vmap(of_one)(keys, dict(raw))
    mode = {name: value[:, 0] for name, value in drawn.mode.items()}
    samples, found = dict(drawn.samples), dict(raw)
    if in_picture:
        bodies = mode["vertices_m"][:, None]
        if samples:
            bodies = samples["vertices_m"]
        masks = silhouettes(bodies, body.faces, raw["camera"])
        mode["silhouette"] = masks[:, 0]
        if samples:
            samples["silhouette"] = masks
    return scores.Prediction(mode, samples, found)


def picture_truth(batch: Mapping[str, Any]) -> scores.Fields:
    """Joints and silhouette of the label in the crop.

    Args:
        batch: ``keypoints_exact_px`` [B, 17, 3]; ``image`` [B, 256, 256, 4] with the
            mask behind the colours.

    Returns:
        ``joints2d_px``, all of which count, and ``silhouette``.
    """
    return {
        "joints2d_px": jnp.asarray(batch["keypoints_exact_px"][..., :2]),
        "silhouette": jnp.asarray(batch["image"][..., 3] > 0.5),
    }


def score_dataset(
    batches: Iterable[tuple[scores.Prediction, Mapping[str, Any], int]],
    rules: DatasetRules,
) -> scores.Scores:
    """Score predictions by the metrics of a dataset.

    Args:
        batches: see ``evaluation.hierprob.score``.
        rules: of the dataset.

    Returns:
        The dataset's metrics; those of samples are left out where there are none.

    Raises:
        UserError: there was no sample, or a prediction is not finite.
    """
    kept = ("joints2d_px", "silhouette") if rules.in_picture else None

    def compared():
        for prediction, target, count in batches:
            samples = {
                name: value
                for name, value in prediction.samples.items()
                if kept is None or name in kept
            }
            yield prediction._replace(samples=samples), target, count

    found = scores.score(compared())
    return scores.Scores(
        {name: found.means[name] for name in rules.metrics if name in found.means},
        {n: found.per_frame[n] for n in rules.metrics if n in found.per_frame},
    )


class PerFrame:
    """Collects what the published evaluation writes of each frame's prediction."""

    def __init__(self) -> None:
        self._rows: dict[str, list[np.ndarray]] = {"pose": [], "shape": [], "cam": []}

    def add(self, raw: Mapping[str, Array], count: int) -> None:
        """Take the first frames of a batch.

        Args:
            raw: the distributions.
            count: how many.
        """
        root = np.asarray(raw["global_rotmat"])[:, None]
        pose = np.concatenate([root, np.asarray(raw["pose_mode"])], 1)
        for name, value in (
            ("pose", pose),
            ("shape", np.asarray(raw["shape_mean"])),
            ("cam", np.asarray(raw["camera"])),
        ):
            self._rows[name].append(value[:count])

    def arrays(self) -> dict[str, np.ndarray]:
        """``pose`` [N, 24, 3, 3] (global rotation first, y up), ``shape`` [N, 10] and
        ``cam`` [N, 3].
        """
        return {name: np.concatenate(rows) for name, rows in self._rows.items()}
