"""Each kind of augmentation alone against numpy, its frequency, and the whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body import parts
from hmr_jax.geometry.crops import crop_points
from hmr_jax.synthetic import proxy_augment as augment
from hmr_jax.synthetic.proxy_augment import ProxyAugmentation

NONE = ProxyAugmentation.none()
KEY = jax.random.key(11)
SIZES = (128, 256)

_boxes = jax.jit(augment.sample_boxes, static_argnums=2)
_proxy = jax.jit(augment.augment_proxy, static_argnums=4)
_picture = jax.jit(augment.occlude_picture, static_argnums=4)


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def only(**changes):
    return dataclasses.replace(NONE, **changes)


def people(batch, size, dtype=np.int32):
    """Label maps with every label, -1 included, and joints all over them."""
    rng = np.random.default_rng(size + batch)
    coarse = rng.integers(-1, 25, (batch, 32, 32))
    labels = coarse.repeat(size // 32, 1).repeat(size // 32, 2).astype(dtype)
    joints = rng.uniform(-0.1 * size, 1.1 * size, (batch, 17, 2)).astype(np.float32)
    return labels, joints, np.ones((batch, 17), bool)


def spoilt(options, batch=16, size=128, key=KEY):
    """Labels, joints and visibility before and after."""
    before = people(batch, size)
    after = _proxy(key, *map(jnp.asarray, before), options)
    return before, tuple(np.asarray(x) for x in after)


def assert_frequency(happened, probability):
    """Within 4 standard errors of the probability."""
    happened = np.asarray(happened, float)
    error = np.sqrt(probability * (1 - probability) / happened.size)
    assert abs(happened.mean() - probability) <= 4 * error


def uniform_in(values, low, high):
    """Values fill the range evenly: its ends, and its mean within 4 errors."""
    values = np.asarray(values, float).ravel()
    assert low <= values.min() and values.max() <= high
    assert values.max() - values.min() > 0.8 * (high - low)
    error = (high - low) / np.sqrt(12 * values.size)
    assert abs(values.mean() - 0.5 * (low + high)) <= 4 * error


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_none_changes_nothing(dtype):
    labels, joints, visible = people(4, 128, dtype)
    visible[1, 3] = False
    images = np.random.default_rng(0).uniform(size=(4, 128, 128, 3)).astype(np.float32)
    args = [jnp.asarray(x) for x in (labels, joints, visible)]
    for new, old in zip(_proxy(KEY, *args, NONE), args, strict=True):
        np.testing.assert_array_equal(new, old)
        assert new.dtype == old.dtype
    shown, seen = _picture(KEY, jnp.asarray(images), *args[1:], NONE)
    np.testing.assert_array_equal(shown, images)
    np.testing.assert_array_equal(seen, visible)
    colours = augment.augment_colours(KEY, jnp.asarray(images), NONE)
    np.testing.assert_array_equal(colours, images)


def standing(size):
    """A column of parts: head, torso, forearm, hand, thigh, foot, 8 rows each."""
    labels = np.zeros((1, size, size), np.int32)
    for i, part in enumerate((23, 1, 19, 3, 7, 5)):
        labels[0, 20 + 8 * i : 28 + 8 * i, 30:40] = part
    return labels


def test_boxes_without_chance():
    labels = jnp.concatenate([standing(128), np.zeros((1, 128, 128), np.int32)])
    box = _boxes(KEY, labels, NONE)
    # Rows 20 to 67, columns 30 to 39; then the whole of the empty picture.
    np.testing.assert_array_equal(box.centre_px, [[34.5, 43.5], [64, 64]])
    np.testing.assert_allclose(box.size_px, [[1.2 * 47] * 2, [128] * 2], rtol=1e-6)
    middle = crop_points(box.centre_px[:, None], box, 128, 128)
    np.testing.assert_array_equal(middle, np.full((2, 1, 2), 64.0))


@pytest.mark.parametrize("size", SIZES)
def test_boxes_move_and_grow(size):
    labels = jnp.asarray(np.tile(standing(size), (500, 1, 1)))
    box = _boxes(KEY, labels, ProxyAugmentation(extreme_crop_prob=0.0))
    size_px, centre = np.asarray(box.size_px), np.asarray(box.centre_px)
    np.testing.assert_array_equal(size_px[:, 0], size_px[:, 1])
    uniform_in(size_px[:, 0] / 47, 0.9, 1.4)
    reach = 5 * size / 256
    for axis, middle in enumerate((34.5, 43.5)):
        uniform_in(centre[:, axis] - middle, -reach - 1e-5, reach + 1e-5)
    assert abs(np.corrcoef(centre.T)[0, 1]) < 4 / np.sqrt(500)


def test_extreme_crops_change_the_box_only():
    labels = jnp.asarray(np.tile(standing(128), (2000, 1, 1)))
    box = _boxes(KEY, labels, only(extreme_crop_prob=0.4))
    height = np.round(np.asarray(box.size_px[:, 0]) / 1.2)
    # All; without thigh and foot; also without forearm and hand.
    assert set(height) == {47, 31, 15}
    for expected, probability in ((47, 0.6), (31, 0.2), (15, 0.2)):
        assert_frequency(height == expected, probability)


def test_extreme_crops_leave_out_the_published_parts():
    times = 64
    labels = np.zeros((25, 32, 32), np.int32)
    labels[:, 2:12, 4:8] = 1
    labels[:, 12:32, 4:8] = np.arange(25)[:, None, None]
    boxes = _boxes(
        KEY, jnp.asarray(labels.repeat(times, 0)), only(extreme_crop_prob=1.0)
    )
    height = np.round(np.asarray(boxes.size_px[:, 0]) / 1.2).reshape(25, times)
    for part in range(1, 25):
        always, half = 5 <= part <= 14, part in (3, 4, 19, 20, 21, 22)
        assert set(height[part]) == ({9} if always else {9, 29} if half else {29})


def test_an_extreme_crop_of_nothing_but_legs_is_none():
    labels = np.zeros((1, 128, 128), np.int32)
    labels[0, 10:31, 40:51] = 7
    box = _boxes(KEY, jnp.asarray(labels), only(extreme_crop_prob=1.0))
    np.testing.assert_array_equal(box.centre_px, [[45, 20]])
    np.testing.assert_allclose(box.size_px, [[24, 24]], rtol=1e-6)


def test_removed_parts_take_their_joints():
    takes = {19: 7, 21: 7, 20: 8, 22: 8, 4: 9, 3: 10}
    takes |= {12: 13, 14: 13, 11: 14, 13: 14, 5: 15, 6: 16}
    chances = (0.4,) * 24
    options = only(remove_part_probs=chances, remove_appendage_joint_prob=1.0)
    (labels, joints, visible), after = spoilt(options, batch=64, size=32)
    removed = np.zeros((64, 25), bool)
    for part in range(1, 25):
        assert (labels == part).any((1, 2)).all()
        removed[:, part] = ~(after[0] == part).any((1, 2))
        if part in takes:
            visible[:, takes[part]] &= ~removed[:, part]
    gone = np.take_along_axis(removed, np.maximum(labels, 0).reshape(64, -1), 1)
    expected = np.where(gone.reshape(labels.shape), 0, labels)
    np.testing.assert_array_equal(after[0], expected)
    np.testing.assert_array_equal(after[1], joints)
    np.testing.assert_array_equal(after[2], visible)


def test_parts_are_removed_as_often_as_published():
    options = only(remove_part_probs=ProxyAugmentation().remove_part_probs)
    options = dataclasses.replace(options, remove_appendage_joint_prob=0.5)
    (labels, _, _), after = spoilt(options, batch=2000, size=32)
    for part in range(1, 25):
        rare = part in (*range(7, 11), *range(15, 19), 23, 24)
        there = (labels == part).any((1, 2))
        gone = there & ~(after[0] == part).any((1, 2))
        assert_frequency(gone[there], 0.05 if rare else 0.1)
    hidden = ~after[2]
    for joint in (9, 10, 15, 16):
        assert_frequency(hidden[:, joint], 0.05)
    for joint in (7, 8, 13, 14):
        assert_frequency(hidden[:, joint], 1 - 0.95**2)
    assert not hidden[:, [0, 1, 2, 3, 4, 5, 6, 11, 12]].any()


@pytest.mark.parametrize("size", SIZES)
def test_square(size):
    options = only(occlude_box_prob=1.0)
    batch = 200
    labels = jnp.ones((batch, size, size), jnp.int32)
    joints, visible = jnp.zeros((batch, 17, 2)), jnp.ones((batch, 17), bool)
    found, _, seen = _proxy(KEY, labels, joints, visible, options)
    hidden = np.asarray(found) == 0
    side = 48 * size // 256
    assert np.asarray(seen).all()
    for axis in (1, 2):
        covered = hidden.any(axis)
        np.testing.assert_array_equal(covered.sum(1), side)
        first = covered.argmax(1)
        np.testing.assert_array_equal(covered[:, ::-1].argmax(1), size - first - side)
        # Corners are cut to whole numbers: half a pixel low on average.
        reach = 38.4 * size / 256
        uniform_in(first + side / 2 - size / 2 + 0.5, -reach - 0.5, reach + 0.5)
    np.testing.assert_array_equal(hidden.sum((1, 2)), side**2)


def test_swapped_joints_keep_their_visibility():
    (_, joints, _), after = spoilt(only(swap_prob=1.0), size=32)
    order = np.arange(17)
    order[[5, 6, 11, 12]] = [6, 5, 12, 11]
    np.testing.assert_array_equal(after[1], joints[:, order])
    assert after[2].all()


def test_swaps_are_independent():
    (_, joints, _), after = spoilt(only(swap_prob=0.1), batch=2000, size=32)
    moved = (joints != after[1]).all(-1)
    np.testing.assert_array_equal(moved[:, 5], moved[:, 6])
    np.testing.assert_array_equal(moved[:, 11], moved[:, 12])
    for event in (moved[:, 5], moved[:, 11]):
        assert_frequency(event, 0.1)
    assert_frequency(moved[:, 5] & moved[:, 11], 0.01)


@pytest.mark.parametrize("size", SIZES)
def test_jitter(size):
    options = only(joint_jitter_px=(-6.0, 6.0), hip_jitter_px=(1.0, 3.0))
    (labels, joints, _), after = spoilt(options, batch=100, size=size)
    moved = (after[1] - joints) * (256 / size)
    hips = np.isin(np.arange(17), (11, 12))
    slack = 1e-3  # float32 differences of numbers up to 280
    uniform_in(moved[:, ~hips], -6 - slack, 6 + slack)
    uniform_in(moved[:, hips], 1 - slack, 3 + slack)
    assert after[2].all()
    np.testing.assert_array_equal(after[0], labels)
    x, y = moved[:, ~hips].reshape(-1, 2).T
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(x.size)


def test_removed_joints():
    _, after = spoilt(only(joint_removal_prob=1.0), size=32)
    removable = (7, 8, 9, 10, 13, 14, 15, 16)
    expected = np.broadcast_to(~np.isin(np.arange(17), removable), (16, 17))
    np.testing.assert_array_equal(after[2], expected)
    _, after = spoilt(only(joint_removal_prob=0.1), batch=2000, size=32)
    for joint in range(17):
        assert_frequency(~after[2][:, joint], 0.1 if joint in removable else 0.0)


def first_rows(hidden, axis):
    """Where hidden rows (axis 1) or columns (axis 2) begin and end, per image."""
    lines = hidden.all(3 - axis)
    np.testing.assert_array_equal(lines, hidden.any(3 - axis))
    return lines.argmax(1), lines.shape[1] - lines[:, ::-1].argmax(1)


HALVES = {
    "bottom": (1, 51, lambda x, y, place: y > place),
    "top": (1, 51, lambda x, y, place: y < place),
    "side": (2, 8, None),
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("target", "size"), [("labels", 128), ("labels", 256), ("picture", 128)]
)
def test_halves(half, target, size):
    axis, reach, rule = HALVES[half]
    batch = 100
    _, joints, visible = people(batch, size)
    # Joints exactly on the limits too.
    joints = np.round(joints)
    options = only(**{f"occlude_{half}_prob": 1.0})
    rest = (jnp.asarray(joints), jnp.asarray(visible), options)
    if target == "labels":
        labels = -jnp.ones((batch, size, size), jnp.int32)
        found, _, seen = _proxy(KEY, labels, *rest)
        hidden = np.asarray(found) == 0
    else:
        found, seen = _picture(KEY, jnp.ones((batch, size, size, 3)), *rest)
        hidden = (np.asarray(found) == 0).all(-1)
    begin, end = first_rows(hidden, axis)
    x, y = joints[..., 0], joints[..., 1]
    if half == "side":
        left = begin == 0
        place = np.where(left, end, begin)
        at = place[:, None]
        gone = np.where(left[:, None], x < at, x > at)
        assert_frequency(left, 0.5)
        np.testing.assert_array_equal(np.where(left, begin, end), ~left * size)
    else:
        place = begin if half == "bottom" else end
        gone = rule(x, y, place[:, None])
        other = end if half == "bottom" else begin
        np.testing.assert_array_equal(other, size if half == "bottom" else 0)
    np.testing.assert_array_equal(seen, ~gone)
    middle, reach = size // 2, reach * size // 256
    assert place.min() >= middle - reach and place.max() < middle + reach
    uniform_in(place + 0.5, middle - reach, middle + reach)


def test_halves_are_as_frequent_as_published():
    options = ProxyAugmentation()
    names = ("bottom", "top", "side")
    batch = 4000
    images = jnp.ones((batch, 32, 32, 1))
    joints, visible = jnp.zeros((batch, 17, 2)), jnp.ones((batch, 17), bool)
    found, _ = _picture(KEY, images, joints, visible, options)
    hidden = np.asarray(found)[..., 0] == 0
    corners = hidden[:, [-1, 0, -1, 0], [-1, 0, 0, -1]]
    low_left, low_right = hidden[:, -1, 0], corners[:, 0]
    top_left, top_right = corners[:, 1], corners[:, 3]
    side = (low_left & top_left) ^ (low_right & top_right)
    events = (low_left & low_right, top_left & top_right, side)
    for name, event in zip(names, events, strict=True):
        # Bottom and top together, 1 in 10000, are no side in this test.
        assert_frequency(event, getattr(options, f"occlude_{name}_prob"))


def test_swap_and_jitter_precede_the_halves():
    joints = np.full((64, 17, 2), 64.0, np.float32)
    joints[:, 5, 1], joints[:, 6, 1] = 0.0, 128.0
    labels = jnp.ones((64, 128, 128), jnp.int32)
    options = only(
        occlude_bottom_prob=1.0,
        occlude_row_px=0,
        swap_prob=1.0,
        joint_jitter_px=(-6.0, 6.0),
    )
    visible = jnp.ones((64, 17), bool)
    _, moved, seen = _proxy(KEY, labels, jnp.asarray(joints), visible, options)
    seen, moved = np.asarray(seen), np.asarray(moved)
    np.testing.assert_array_equal(seen, moved[..., 1] <= 64)
    assert not seen[:, 5].any() and seen[:, 6].all()
    assert 0.3 < seen[:, 0].mean() < 0.7


def test_all_together_is_consistent():
    (labels, joints, _), after = spoilt(ProxyAugmentation(), batch=500, size=32)
    assert ((after[0] == labels) | (after[0] == 0)).all()
    order = np.arange(17)
    order[[5, 6, 11, 12]] = [6, 5, 12, 11]
    reach = 6 * 32 / 256 + 1e-4
    stayed = (np.abs(after[1] - joints) <= reach).all(-1)
    swapped = (np.abs(after[1] - joints[:, order]) <= reach).all(-1)
    assert (stayed | swapped).all()
    # Without torso and head, what a joint's part shows decides about it.
    many = ProxyAugmentation(remove_part_probs=(1.0,) * 24)
    _, (gone, _, _) = spoilt(many, size=32)
    seen = np.asarray(parts.joints_on_visible_parts(jnp.asarray(gone), 0))
    assert not seen[:, list(parts.PART14_OF_JOINT)].any()


def test_images_do_not_know_of_each_other():
    labels, joints, visible = map(jnp.asarray, people(8, 32))
    options = ProxyAugmentation(
        remove_part_probs=(0.5,) * 24,
        **{
            f"{name}_prob": 0.5
            for name in ("occlude_box", "occlude_side", "swap", "joint_removal")
        },
    )
    once = _proxy(KEY, labels, joints, visible, options)
    others = (labels.at[1:].set(3), joints.at[1:].set(0.0), visible.at[1:].set(False))
    again = _proxy(KEY, *others, options)
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    same = _proxy(
        KEY, *(jnp.repeat(x[:1], 8, 0) for x in (labels, joints, visible)), options
    )
    assert not np.array_equal(same[0][0], same[0][1])
    # Mapped over stacks of batches.
    keys = jax.random.split(KEY, 2)
    stack = [jnp.stack([x, x]) for x in (labels, joints, visible)]
    mapped = jax.jit(jax.vmap(lambda k, *x: augment.augment_proxy(k, *x, options)))
    mapped = mapped(keys, *stack)
    single = _proxy(keys[1], labels, joints, visible, options)
    for a, b in zip(mapped, single, strict=True):
        np.testing.assert_allclose(a[1], b, atol=1e-5)


def test_joints_that_are_not_numbers_stay_so_and_are_not_seen():
    labels, joints, visible = people(16, 32)
    joints[:, 5, 0], joints[:, 9] = np.nan, np.nan
    args = [jnp.asarray(x) for x in (labels, joints, visible)]
    options = only(swap_prob=1.0, joint_jitter_px=(-6.0, 6.0), occlude_side_prob=1.0)
    _, moved, seen = _proxy(KEY, *args, options)
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(joints))
    assert not np.asarray(seen)[:, [5, 9]].any()
    assert np.asarray(seen).any()
    images = jnp.ones((16, 32, 32, 3))
    _, seen = _picture(KEY, images, *args[1:], NONE)
    np.testing.assert_array_equal(seen, ~np.isnan(joints).any(-1))


def test_colours():
    images = np.full((400, 2, 2, 3), 0.5, np.float32)
    found = np.asarray(
        augment.augment_colours(KEY, jnp.asarray(images), ProxyAugmentation())
    )
    np.testing.assert_array_equal(found, found[:, :1, :1] + np.zeros_like(found))
    gain = found[:, 0, 0] / 0.5
    uniform_in(gain, 0.8, 1.2)
    assert np.abs(np.corrcoef(gain.T) - np.eye(3)).max() < 4 / np.sqrt(400)
    bright = augment.augment_colours(KEY, jnp.ones((50, 2, 2, 3)), ProxyAugmentation())
    assert float(bright.max()) == 1.0 and 0.75 < float(bright.min()) < 0.85


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("swap_prob", 1.1),
        ("occlude_box_prob", -0.1),
        ("occlude_top_prob", float("nan")),
        ("remove_part_probs", (0.1,) * 23),
        ("remove_part_probs", (2.0,) * 24),
        ("joint_jitter_px", (6.0, -6.0)),
        ("box_scale_range", (0.0, float("inf"))),
        ("box_scale_range", (-1.2, 0.0)),
        ("box_scale", 0.0),
        ("swap_pairs", ((5, 17),)),
        ("swap_pairs", ((5, 5),)),
        ("removable_joints", (17,)),
        ("occlude_row_px", 129),
        ("occlude_column_px", -8),
        ("occlude_box_px", -1.0),
        ("channel_gain", 1.5),
    ],
)
def test_options_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=name):
        ProxyAugmentation(**{name: value})


def test_pictures_that_are_not_square():
    with pytest.raises(ValueError, match="4 rows x 6"):
        augment.sample_boxes(KEY, jnp.zeros((1, 4, 6), jnp.int32), NONE)
