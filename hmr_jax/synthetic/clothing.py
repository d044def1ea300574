"""Procedural clothes: a colour for each vertex from its place on the rest body.

Garments end at heights and at distances from the body's middle in the T-pose, so one
rule fits every shape and pose. Patterns are waves through the rest body.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hmr_jax.body.forward import rest_joints
from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.model import BodyModel

# Darkest and lightest skin; colours between are mixtures.
SKIN_RGB = ((0.22, 0.13, 0.09), (0.95, 0.77, 0.66))
HAIR_RGB = ((0.05, 0.04, 0.04), (0.35, 0.2, 0.1), (0.8, 0.65, 0.4), (0.6, 0.6, 0.6))
BALD_SHARE, PATTERN_SHARE = 0.12, 0.5
_TRUNK, _ARMS = (0, 3, 6, 9, 12, 13, 14), (13, 14, 16, 17, 18, 19)
_LEGS, _FEET = (0, 1, 2, 4, 5, 7, 8), (7, 8, 10, 11)


class Figure(NamedTuple):
    """What clothes need to know about a body; the same for every sample.

    Attributes:
        places_m: rest vertices of the mean shape.
        joints_m: rest joints of the mean shape.
        part: the joint that moves each vertex most.
    """

    places_m: Float[Array, "verts 3"]
    joints_m: Float[Array, "joints 3"]
    part: Int[Array, "verts"]


class Cloth(NamedTuple):
    """A two-coloured pattern: the product of two waves decides the colour.

    Attributes:
        rgb: the two colours.
        waves_per_m: wave vectors times 2 pi, one for each wave.
        phases: radians.
    """

    rgb: Float[Array, "2 3"]
    waves_per_m: Float[Array, "2 3"]
    phases: Float[Array, "2"]


class Clothes(NamedTuple):
    """One outfit. Extents are shares of the way between two joints.

    Attributes:
        shirt: of trunk and sleeves.
        trousers: of hips and legs.
        shoe_rgb: one colour.
        skin_rgb: one colour.
        hair_rgb: one colour.
        sleeve: shoulder (0) to elbow (1) to wrist (2).
        hem: hips (0) to knees (1): lower end of the shirt; negative is above the hips.
        leg: hips (0) to knees (1) to ankles (2): lower end of the trousers.
        collar: neck (0) to head (1): upper end of the shirt.
        shoe: ankle (0) to knee (1): upper end of the shoes; below -1 is barefoot.
        hairline: metres above the head joint; large is bald.
        mottle: strength of the blotches on everything.
        suit: 1 for a suit with a colour for each part over all of it, else 0.
    """

    shirt: Cloth
    trousers: Cloth
    shoe_rgb: Float[Array, "3"]
    skin_rgb: Float[Array, "3"]
    hair_rgb: Float[Array, "3"]
    sleeve: Float[Array, ""]
    hem: Float[Array, ""]
    leg: Float[Array, ""]
    collar: Float[Array, ""]
    shoe: Float[Array, ""]
    hairline: Float[Array, ""]
    mottle: Float[Array, ""]
    suit: Float[Array, ""]


def figure(body: BodyModel) -> Figure:
    """The places and parts of a body's vertices.

    Args:
        body: a body of the 24-joint tree in a T-pose.

    Returns:
        ``Figure`` of its mean shape.

    Raises:
        ValueError: the body has another tree.
    """
    if body.parents != SMPL_PARENTS:
        raise ValueError(
            f"body: expected the 24-joint tree of SMPL, got {body.num_joints} joints "
            f"with parents {body.parents}"
        )
    joints = rest_joints(body, jnp.zeros(body.num_betas))
    return Figure(body.template_m, joints, jnp.argmax(body.blend_weights, axis=0))


def _cloth_rgb(rng: np.random.Generator) -> np.ndarray:
    value, vivid = rng.uniform(0.08, 0.95), rng.uniform(0.0, 0.45)
    return np.clip(value + rng.uniform(-vivid, vivid, 3), 0.02, 1.0)


def sample_cloth(rng: np.random.Generator) -> Cloth:
    """A plain, striped, checked or blotched cloth."""
    rgb = np.stack([_cloth_rgb(rng), _cloth_rgb(rng)])
    kind = rng.integers(1, 5) if rng.uniform() < PATTERN_SHARE else 0
    waves, phases = np.zeros((2, 3)), np.full(2, np.pi / 2)
    if kind == 0:
        rgb[1] = rgb[0]
    if kind in (1, 3):
        waves[0, 1] = 2 * np.pi / rng.uniform(0.06, 0.25)
    if kind in (2, 3):
        waves[1, 0] = 2 * np.pi / rng.uniform(0.06, 0.25)
    if kind == 4:
        waves = rng.normal(0, 2 * np.pi / 0.25, (2, 3))
        phases = rng.uniform(0, 2 * np.pi, 2)
    parts: list[Any] = [x.astype(np.float32) for x in (rgb, waves, phases)]
    return Cloth(*parts)


def suit_rgb() -> np.ndarray:
    """The colours of the suit of parts, [24, 3]: spread over hue and lightness.

    It tells left from right and each part from its neighbours at a glance, so that a
    network learns to find joints from few pictures.
    """
    part = np.arange(len(SMPL_PARENTS))
    hue = 2 * np.pi * part * 0.618034  # steps of the golden ratio never come near again
    light = 0.35 + 0.4 * (part * 0.7548777 % 1.0)
    waves = np.cos(hue[:, None] - 2 * np.pi * np.arange(3) / 3)
    return np.clip(light[:, None] + 0.45 * waves, 0.02, 1.0).astype(np.float32)


def sample_clothes(rng: np.random.Generator, suit_share: float = 0.0) -> Clothes:
    """A random outfit, as numpy arrays.

    Args:
        rng: source of randomness.
        suit_share: share of people in the suit of parts.

    Returns:
        ``Clothes`` in float32.
    """
    dark, light = np.array(SKIN_RGB)
    tone = rng.uniform()
    hair = np.array(HAIR_RGB)[rng.integers(len(HAIR_RGB))] * rng.uniform(0.7, 1.2)
    sleeve = (rng.uniform(0.0, 0.2), rng.uniform(0.4, 0.9), rng.uniform(1.8, 2.0))
    leg = (rng.uniform(0.2, 0.9), rng.uniform(1.0, 1.6), rng.uniform(1.85, 2.1))
    dress = rng.uniform() < 0.1
    values: dict[str, Any] = {
        "shirt": sample_cloth(rng),
        "trousers": sample_cloth(rng),
        "shoe_rgb": _cloth_rgb(rng),
        "skin_rgb": (dark * (1 - tone) + light * tone) * rng.uniform(0.9, 1.05, 3),
        "hair_rgb": hair,
        "sleeve": sleeve[rng.choice(3, p=(0.15, 0.45, 0.4))],
        "hem": rng.uniform(0.4, 1.1) if dress else rng.uniform(-0.25, 0.25),
        "leg": leg[rng.choice(3, p=(0.2, 0.1, 0.7))],
        "collar": rng.uniform(-0.6, 0.3),
        "shoe": -2.0 if rng.uniform() < 0.1 else rng.uniform(0.0, 0.25),
        "hairline": 1.0 if rng.uniform() < BALD_SHARE else rng.uniform(0.06, 0.1),
        "mottle": rng.uniform(0.0, 0.08),
        "suit": rng.uniform() < suit_share,
    }
    for key, value in values.items():
        if not isinstance(value, Cloth):
            values[key] = np.asarray(value, np.float32)
    return Clothes(**values)


def _dye(cloth: Cloth, places_m: Array) -> Array:
    """Colour of a cloth at every vertex."""
    turns = jnp.einsum("vc,wc->wv", places_m, cloth.waves_per_m)
    waves = jnp.sin(turns + cloth.phases[:, None])
    share = jnp.clip(0.5 + 3.0 * waves[0] * waves[1], 0.0, 1.0)[:, None]
    return cloth.rgb[:1] * share + cloth.rgb[1:] * (1 - share)


def _is_any(part: Array, joints: tuple[int, ...]) -> Array:
    return jnp.any(part[:, None] == jnp.array(joints)[None], axis=1)


def _along(first: Array, second: Array, third: Array, share: Array) -> Array:
    """The coordinate at share 0 (first) to 1 (second) to 2 (third)."""
    upper = first + (second - first) * jnp.minimum(share, 1.0)
    return jnp.where(share <= 1.0, upper, second + (third - second) * (share - 1.0))


def dress(figure: Figure, clothes: Clothes) -> Float[Array, "verts 3"]:
    """Colours of a clothed body.

    Args:
        figure: of the body.
        clothes: the outfit.

    Returns:
        One colour in [0, 1] for each vertex.
    """
    places, joints, part = figure
    x, y, z = jnp.abs(places[:, 0]), places[:, 1], places[:, 2]
    hip, knee, ankle = (0.5 * (joints[j, 1] + joints[j + 1, 1]) for j in (1, 4, 7))
    sleeve_x = _along(joints[16, 0], joints[18, 0], joints[20, 0], clothes.sleeve)
    collar_y = joints[12, 1] + clothes.collar * (joints[15, 1] - joints[12, 1])
    hem_y = hip + clothes.hem * (knee - hip)
    leg_y = _along(hip, knee, ankle, clothes.leg)
    shoe_y = ankle + clothes.shoe * (knee - ankle)
    # Hair grows behind a plane that rises towards the face.
    above = y - joints[15, 1] - 0.8 * (z - joints[15, 2]) > clothes.hairline
    on_trunk = _is_any(part, _TRUNK) & (y < collar_y)
    on_arm = _is_any(part, _ARMS) & (x < sleeve_x)
    on_leg = _is_any(part, _LEGS)
    layers = [
        (on_leg & (y > leg_y), _dye(clothes.trousers, places)),
        ((on_trunk | on_arm | on_leg) & (y > hem_y) & (on_arm | (y < collar_y)), None),
        (_is_any(part, _FEET) & (y < shoe_y), clothes.shoe_rgb),
        ((part == 15) & above, clothes.hair_rgb),
    ]
    colours = jnp.broadcast_to(clothes.skin_rgb, places.shape)
    shirt = _dye(clothes.shirt, places)
    for where, colour in layers:
        colour = shirt if colour is None else jnp.broadcast_to(colour, places.shape)
        colours = jnp.where(where[:, None], colour, colours)
    colours = jnp.where(clothes.suit > 0.5, jnp.asarray(suit_rgb())[part], colours)
    turns = jnp.stack([37.0 * x + 23.0 * z, 41.0 * y - 17.0 * z, 29.0 * z + 31.0 * x])
    blotches = jnp.sin(turns[0]) * jnp.sin(turns[1]) + jnp.sin(turns[2] + turns[1])
    return jnp.clip(colours + clothes.mottle * blotches[:, None], 0.0, 1.0)
