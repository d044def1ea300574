"""The computing half of predict: crops, 2D joints, bodies, in batches of one size."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.geometry.crops import (
    Box,
    box_of_image,
    crop_images,
    crop_points,
    uncrop_points,
)
from hmr_jax.nn.hrnet import CROP_SIZE_PX, HRNet
from hmr_jax.nn.pose2d import BOX_SCALE, detect_joints, person_crops
from hmr_jax.predict.persons import Person
from hmr_jax.systems.system import Seen

PAD_TO_PX = 256
"""Pictures are padded to multiples of this: few sizes, few compilations."""

SQUARE_PX = (CROP_SIZE_PX[0], CROP_SIZE_PX[0])
_BAND_PX = (CROP_SIZE_PX[0] - CROP_SIZE_PX[1]) // 2
_WIDENED = CROP_SIZE_PX[0] / CROP_SIZE_PX[1]

Apply = Callable[..., Any]
People = Callable[[Any, BodyModel, Seen], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Cut:
    """A person's crop.

    Attributes:
        person: of whom.
        crop: RGB in [0, 1], float32 [384, 384, 3]; joints are looked for in the
            middle 288 columns.
        shown: centre and size of what it shows of the picture [4].
        focal_px: focal length of the picture's camera.
        size_px: width and height of the picture.
    """

    person: Person
    crop: np.ndarray
    shown: np.ndarray
    focal_px: float
    size_px: tuple[int, int]


def load_pose2d(path: str) -> tuple[Apply, Any]:
    """An HRNet for 17 joints from converted parameters.

    Args:
        path: file that ``hmr-jax convert --system=hrnet`` wrote.

    Returns:
        How to apply it, and its variables. The width is the file's.

    Raises:
        FileNotFoundError: no such file.
        UserError: the parameters are not those of such a network.
    """
    from hmr_jax.export.params import load_params
    from hmr_jax.training.matching import check_matches
    from hmr_jax.training.trained import check_finite

    variables = load_params(path)
    try:
        width = variables["params"]["transition1_0"]["conv"]["kernel"].shape[-1]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: expected parameters of an HRNet (hmr-jax convert "
            "--system=hrnet), found none of its transition1_0"
        ) from error
    model = HRNet(width=width)
    images = jax.ShapeDtypeStruct((1, *CROP_SIZE_PX, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    check_matches(jax.eval_shape(init, jax.random.key(0), images), variables, path)
    check_finite(variables, path)
    return functools.partial(model.apply, train=False), variables


def person_key(seed: int, person: Person) -> jax.Array:
    """A random key that depends on the seed, the file's name and the person alone."""
    text = f"{person.path.name}/{person.index}".encode()
    return jax.random.fold_in(jax.random.key(seed), np.uint32(zlib.crc32(text)))


class Predictor:
    """Predicts bodies with one compiled program for all batches."""

    def __init__(
        self,
        people: People,
        variables: Any,
        body: BodyModel,
        *,
        pose2d: tuple[Apply, Any] | None = None,
        needs_joints2d: bool = True,
        padding: float = BOX_SCALE,
        side_bands: bool = False,
        focal_px: float = 0.0,
        seed: int = 0,
    ):
        """Put the variables on the device.

        Args:
            people: of the system.
            variables: its variables.
            body: the body.
            pose2d: of ``load_pose2d``; None where persons come with joints.
            needs_joints2d: whether ``people`` looks at 2D joints; crops are then those
                in which they are looked for, else as large as boxes are long.
            padding: margin around boxes.
            side_bands: black out what is left and right of the crop in which joints
                are looked for, as published; else the picture goes on there.
            focal_px: of the camera of all pictures; 0 takes each one's diagonal.
            seed: of the samples.
        """
        self._variables, self._body = jax.device_put((variables, body))
        self._seed, self._focal_px, self._needs = seed, focal_px, needs_joints2d
        self._people = jax.jit(people)
        cut = functools.partial(_cut, padding, side_bands)
        self._cut = jax.jit(
            cut if needs_joints2d else functools.partial(_cut_square, padding)
        )
        self._pose2d = None
        if pose2d is not None:
            joints = jax.jit(functools.partial(_joints, pose2d[0]))
            self._pose2d = functools.partial(joints, jax.device_put(pose2d[1]))

    def cut(self, picture: np.ndarray, person: Person) -> Cut:
        """Cut a person out.

        Args:
            picture: uint8 [height, width, 3].
            person: who.

        Returns:
            The crop, black outside the picture.
        """
        height, width = picture.shape[:2]
        pad = [(0, -height % PAD_TO_PX), (0, -width % PAD_TO_PX), (0, 0)]
        box = np.asarray(person.box_xywh_px, np.float32)
        centre = box[:2] + 0.5 * box[2:]
        # Black beyond the border is what the crop shows there anyway.
        crop, shown = self._cut(np.pad(picture, pad)[None], centre[None], box[None, 2:])
        focal = self._focal_px or float(np.hypot(width, height))
        size = (width, height)
        return Cut(person, np.asarray(crop[0]), np.asarray(shown[0]), focal, size)

    def __call__(self, cuts: Sequence[Cut], batch_size: int) -> list[dict[str, Any]]:
        """Predict the bodies of at most one batch.

        Args:
            cuts: persons, at most ``batch_size``.
            batch_size: of the compiled program; missing ones are filled up.

        Returns:
            For each person the outputs of ``people`` without the batch axis (the
            joints in the crop become ``joints2d_body_px``, in the picture),
            ``joints2d_px`` and ``joints2d_confidence`` in the picture (the body's own
            joints where none were looked for), ``box_xywh_px``, ``box_score``,
            ``crop`` and ``crop_box_px``.

        Raises:
            ValueError: a person without joints, and no network to find them.
        """
        filled = [*cuts, *[cuts[-1]] * (batch_size - len(cuts))]
        crops = jnp.asarray(np.stack([cut.crop for cut in filled]))
        shown = np.stack([cut.shown for cut in filled])
        box = Box(jnp.asarray(shown[:, :2]), jnp.asarray(shown[:, 2:]))
        joints = confidence = None
        if self._needs:
            joints, confidence = self._observed(filled, crops, box)
        keys = jnp.stack([person_key(self._seed, cut.person) for cut in filled])
        cameras = np.stack([_inverse_camera(cut) for cut in filled])
        seen = Seen(crops, _crop_to_image(box), cameras, joints, confidence, keys)
        out = self._people(self._variables, self._body, seen)
        body_px = uncrop_points(out.pop("joints2d_crop_px"), box, *SQUARE_PX)
        if joints is None:
            found, confidence = body_px, jnp.ones(body_px.shape[:2])
            out["joints2d_visible"] = confidence > 0
        else:
            found = uncrop_points(joints, box, *SQUARE_PX)
        out |= {
            "joints2d_px": found,
            "joints2d_body_px": body_px,
            "joints2d_confidence": confidence,
            "crop_box_px": shown,
        }
        host = jax.device_get(out)
        return [
            {name: value[row] for name, value in host.items()}
            | {
                "crop": cut.crop,
                "box_xywh_px": np.asarray(cut.person.box_xywh_px, np.float32),
                "box_score": np.float32(cut.person.score),
            }
            for row, cut in enumerate(cuts)
        ]

    def _observed(self, cuts, crops, box):
        """2D joints in the crops, found by the network or given."""
        given = [cut.person.joints for cut in cuts]
        if all(joints is not None for joints in given):
            rows = jnp.asarray(np.stack(given).astype(np.float32))
            return crop_points(rows[..., :2], box, *SQUARE_PX), rows[..., 2]
        if self._pose2d is None:
            raise ValueError("expected 2D joints, or a network that finds them")
        return self._pose2d(crops)


def _cut(scale, side_bands, picture, centre, size):
    images = picture.astype(jnp.float32) / 255
    crops, shown = person_crops(images, Box(centre, size), scale=scale)
    wide = Box(shown.centre_px, shown.size_px * jnp.array([[_WIDENED, 1.0]]))
    if side_bands:
        square = jnp.pad(crops, ((0, 0), (0, 0), (_BAND_PX, _BAND_PX), (0, 0)))
    else:
        square = crop_images(images, wide, *SQUARE_PX)
    return square, jnp.concatenate([wide.centre_px, wide.size_px], -1)


def _joints(apply, variables, crops):
    middle = crops[:, :, _BAND_PX:-_BAND_PX]
    whole = box_of_image(*CROP_SIZE_PX, (crops.shape[0],))
    found = detect_joints(functools.partial(apply, variables), middle, whole, scale=1.0)
    offset = jnp.array([_BAND_PX, 0.0])
    return found["crop_joints_px"] + offset[None, None], found["confidence"]


def _cut_square(scale, picture, centre, size):
    images = picture.astype(jnp.float32) / 255
    side = scale * size.max(-1, keepdims=True)
    box = Box(centre, jnp.concatenate([side, side], -1))
    square = crop_images(images, box, *SQUARE_PX)
    return square, jnp.concatenate([box.centre_px, box.size_px], -1)


def _inverse_camera(cut: Cut) -> np.ndarray:
    """The inverse of a camera that looks along the middle of the picture."""
    width, height = cut.size_px
    camera = np.array(
        [[cut.focal_px, 0, width / 2], [0, cut.focal_px, height / 2], [0, 0, 1]]
    )
    return np.linalg.inv(camera).astype(np.float32)


def _crop_to_image(box: Box) -> jax.Array:
    """Affine maps [B, 2, 3] from pixels of the crops to those of the pictures."""
    scale = box.size_px / SQUARE_PX[0]
    offset = uncrop_points(jnp.zeros((len(scale), 1, 2)), box, *SQUARE_PX)[:, 0]
    diagonal = scale[:, :, None] * jnp.eye(2)[None]
    return jnp.concatenate([diagonal, offset[:, :, None]], -1)
