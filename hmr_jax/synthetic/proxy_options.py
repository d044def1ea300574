"""Options of the augmentation of synthetic pictures."""

import dataclasses

import numpy as np

from hmr_jax.errors import UserError
from hmr_jax.nn.proxy import PUBLISHED_SIZE_PX

NUM_PARTS = 24
NUM_JOINTS = 17

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ProxyAugmentation:
    """How strongly, and how often, pictures are spoilt; defaults are the published.

    Attributes:
        box_scale: margin around the person's box.
        box_scale_range: added to ``box_scale``, uniform.
        box_centre_range_px: added to the box's centre, per axis, uniform.
        extreme_crop_prob: half of it leaves legs and feet out of the box, the other
            half also hands and forearms.
        remove_part_probs: of each of the parts 1 to 24, to become background.
        remove_appendage_joint_prob: that a removed part's joint becomes invisible.
        occlude_box_prob: that a square of the labels becomes background.
        occlude_box_px: side of that square.
        occlude_box_centre_range_px: of its centre from the picture's, per axis.
        swap_prob: of each of ``swap_pairs``.
        swap_pairs: joints that exchange their coordinates.
        joint_jitter_px: added to the coordinates of joints, uniform.
        hip_jitter_px: the same of both hips.
        joint_removal_prob: of each of ``removable_joints``, to become invisible.
        removable_joints: joints that may be missed.
        occlude_bottom_prob: that everything below a row vanishes.
        occlude_top_prob: that everything above a row vanishes.
        occlude_side_prob: that everything on one side of a column vanishes.
        occlude_row_px: whole rows from the middle, in ``[-n, n)``.
        occlude_column_px: whole columns from the middle, in ``[-n, n)``.
        channel_gain: gains of colours are in ``1 +- channel_gain``.
    """

    box_scale: float = 1.2
    box_scale_range: Range = (-0.3, 0.2)
    box_centre_range_px: Range = (-5.0, 5.0)
    extreme_crop_prob: float = 0.1
    remove_part_probs: tuple[float, ...] = (
        *(0.1,) * 6,
        *(0.05,) * 4,
        *(0.1,) * 4,
        *(0.05,) * 4,
        *(0.1,) * 4,
        *(0.05,) * 2,
    )
    remove_appendage_joint_prob: float = 0.5
    occlude_box_prob: float = 0.1
    occlude_box_px: float = 48.0
    occlude_box_centre_range_px: Range = (-38.4, 38.4)
    swap_prob: float = 0.1
    swap_pairs: tuple[tuple[int, int], ...] = ((5, 6), (11, 12))
    joint_jitter_px: Range = (-6.0, 6.0)
    hip_jitter_px: Range = (-6.0, 6.0)
    joint_removal_prob: float = 0.1
    removable_joints: tuple[int, ...] = (7, 8, 9, 10, 13, 14, 15, 16)
    occlude_bottom_prob: float = 0.02
    occlude_top_prob: float = 0.005
    occlude_side_prob: float = 0.05
    occlude_row_px: int = 51
    occlude_column_px: int = 8
    channel_gain: float = 0.2

    def __post_init__(self):
        """Check the fields.

        Raises:
            UserError: a field's value makes no sense.
        """
        for field in dataclasses.fields(self):
            _check_field(field.name, getattr(self, field.name))
        if not self.box_scale + self.box_scale_range[0] > 0:
            raise UserError(
                "box_scale: expected a sum with the lower end of box_scale_range "
                f"above 0, got {self.box_scale} and {self.box_scale_range}"
            )

    @classmethod
    def none(cls) -> "ProxyAugmentation":
        """Nothing is spoilt; boxes keep the published margin."""
        names = [field.name for field in dataclasses.fields(cls)]
        off: dict = {name: 0.0 for name in names if name.endswith("_prob")}
        off |= {name: (0.0, 0.0) for name in names if _is_range(name)}
        # Means nothing without the square, and is published again with it.
        del off["occlude_box_centre_range_px"]
        off |= {"remove_part_probs": (0.0,) * NUM_PARTS, "channel_gain": 0.0}
        return cls(**off)


def _is_range(name: str) -> bool:
    return name.endswith(("_range", "_range_px", "_jitter_px"))


def _check_field(name: str, value) -> None:
    """Raise ValueError, naming the field, where its value makes no sense."""

    def fail(expected: str):
        raise UserError(f"{name}: expected {expected}, got {value}")

    if name.endswith("_prob") and not 0 <= value <= 1:
        fail("a probability in [0, 1]")
    if name == "remove_part_probs":
        if len(value) != NUM_PARTS:
            fail(f"{NUM_PARTS} probabilities (found {len(value)})")
        if not all(0 <= chance <= 1 for chance in value):
            fail("probabilities in [0, 1]")
    if _is_range(name) and not (
        len(value) == 2 and np.all(np.isfinite(value)) and value[0] <= value[1]
    ):
        fail("two numbers, the lower first")
    if name == "swap_pairs" and not all(
        len(pair) == 2 and set(pair) <= set(range(NUM_JOINTS)) and pair[0] != pair[1]
        for pair in value
    ):
        fail(f"pairs of different joints below {NUM_JOINTS}")
    if name == "removable_joints" and not set(value) <= set(range(NUM_JOINTS)):
        fail(f"joints from 0 to {NUM_JOINTS - 1}")
    if name in ("occlude_row_px", "occlude_column_px") and not (
        0 <= value <= PUBLISHED_SIZE_PX // 2 and value == int(value)
    ):
        fail(f"a whole number from 0 to {PUBLISHED_SIZE_PX // 2}")
    if name == "occlude_box_px" and not 0 <= value <= PUBLISHED_SIZE_PX:
        fail(f"a number from 0 to {PUBLISHED_SIZE_PX}")
    if name == "box_scale" and not 0 < value < np.inf:
        fail("a number above 0")
    if name == "channel_gain" and not 0 <= value <= 1:
        fail("a number in [0, 1]")
