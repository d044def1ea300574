"""I2L-MeshNet's targets on the device: laws that a body and its mirror image obey."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import schema
from data_pipelines.transforms import i2l, ikol, int_hmr
from hmr_jax.body.forward import body_forward, rest_joints
from hmr_jax.body.joint_sets import JOINT_SETS, SMPL_PARENTS, get_joint_set, map_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.systems.i2l_meshnet import targets
from tests.data_pipelines.transforms.batches import batch_of, numpy, uniforms_of
from tests.data_pipelines.transforms.people import mirrored_person, person, spec_of

FLIP = list(JOINT_SETS["smpl_24"].flip_permutation)
MIRROR = np.array([-1.0, 1.0, 1.0])
JOINT_VERTICES = (24, 25, 65, 26, 66)
"""Nose, left eye, right eye, left ear, right ear: vertices v and v + 40 are mirror
images of each other."""


@pytest.fixture(scope="module")
def body():
    """24 joints, 40 vertices and their mirror images; shapes are symmetric too."""
    rng = np.random.default_rng(1)
    half = 40
    owner = np.concatenate([np.arange(24), rng.integers(0, 24, half - 24)])
    rest = np.zeros((24, 3))
    for joint in range(1, 24):
        rest[joint] = rest[SMPL_PARENTS[joint]] + 0.2 * rng.standard_normal(3)
    rest = (rest + rest[FLIP] * MIRROR) / 2
    weights = np.zeros((half, 24))
    weights[np.arange(half), owner] = 0.7
    np.add.at(
        weights, (np.arange(half), np.maximum(np.array(SMPL_PARENTS)[owner], 0)), 0.3
    )
    regressor = np.zeros((24, half))
    regressor[np.arange(24), np.arange(24)] = 0.5
    template = rest[owner] + 0.05 * rng.standard_normal((half, 3))
    shapes = 0.02 * rng.standard_normal((half, 3, 10))

    def both(values, mirrored):
        return np.concatenate([values, mirrored])

    h36m = rng.uniform(size=(17, half))
    coco = rng.uniform(size=(17, half))

    def regressed(matrix, joint_set):
        flip = list(JOINT_SETS[joint_set].flip_permutation)
        matrix = np.concatenate([matrix, matrix[flip]], 1)
        return matrix / matrix.sum(1, keepdims=True)

    return BodyModel.create(
        template_m=both(template, template * MIRROR),
        shape_dirs_m=both(shapes, shapes * MIRROR[:, None]),
        joint_regressor=np.concatenate([regressor, regressor[FLIP]], 1),
        skin_weights=both(weights, weights[:, FLIP]),
        faces=rng.integers(0, 80, (20, 3)),
        parents=SMPL_PARENTS,
        extra_joint_regressors={
            "h36m_right_first_17": regressed(h36m, "h36m_right_first_17"),
            "coco_17": regressed(coco, "coco_17"),
        },
    )


def mirrored_vertices(vertices):
    return np.concatenate([vertices[..., 40:, :], vertices[..., :40, :]], -2) * MIRROR


def random_draws(transform, slots, count=6, **chosen):
    rng = np.random.default_rng(2)
    names = {"flip": np.array([0.1, 0.9] * (count // 2))}
    for name in ("scale", "rotation", "shift"):
        if name in slots._counts:
            names[name] = rng.uniform(0.1, 0.9, (count, slots._counts[name]))
    names["rotate"] = 0.1
    return uniforms_of(slots, count, **{**names, **chosen})


def labelled(transform, draws, count=6, **changes):
    found = transform.joint_set
    joint_set = get_joint_set(found) if isinstance(found, str) else found
    spec = spec_of(joint_set)
    people = [person(i, len(joint_set)) | changes for i in range(count)]
    records = [schema.validate(p, spec) for p in people]
    labels, _ = transform.labels(batch_of(records, spec, transform), draws)
    return numpy(labels), people


def posed(body, betas, pose):
    args = [jnp.asarray(a, jnp.float32) for a in (betas, pose)]
    out = forward(body, *args)
    root = np.asarray(out.joints_m)[:, :1]
    return np.asarray(out.vertices_m) - root


def expected_vertices(body, people, flipped, turn):
    """The posed bodies about their roots, mirrored and turned as vertices."""
    stack = {k: np.stack([p[k] for p in people]) for k in ("betas", "pose_aa")}
    vertices = posed(body, stack["betas"], stack["pose_aa"])
    vertices = np.where(flipped[:, None, None], mirrored_vertices(vertices), vertices)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y = vertices[..., 0], vertices[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y, vertices[..., 2]], -1)


def test_posing_with_moved_parameters_is_moving_the_posed_body(body):
    options = int_hmr.int_options(
        1, clips=False, train=True, rotation_deg=40.0, random_crop=0.0
    )
    made = int_hmr.IntTransform(options)
    draws = random_draws(made, int_hmr.SLOTS)
    box = np.array([60.0, 50.0, 150.0, 150.0])
    labels, people = labelled(made, draws, bbox_xywh_px=box)
    linear = np.linalg.inv(labels["crop_to_image"][:, :, :2])
    flipped = labels["flipped"] > 0
    assert 0 < flipped.sum() < 6
    sign = np.where(flipped, -1, 1)
    turn = np.arctan2(linear[:, 1, 0] * sign, linear[:, 0, 0] * sign)
    assert np.abs(turn).max() > 0.1
    expected = expected_vertices(body, people, flipped, turn)
    found = posed(body, labels["betas"], labels["pose_aa"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ikols_pose_is_that_of_the_mirrored_body(body):
    made = ikol.IkolTransform(ikol.ikol_options(train=True))
    from data_pipelines.transforms.ikol_crop import SLOTS

    labels, people = labelled(made, random_draws(made, SLOTS))
    flipped = np.array([1, 0] * 3, bool)
    expected = expected_vertices(body, people, flipped, np.zeros(6))
    found = posed(body, labels["betas"], labels["pose_aa"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


forward = jax.jit(body_forward)


def device(labels):
    return {k: jnp.asarray(v) for k, v in labels.items()}


@functools.cache
def compiled():
    made = functools.partial(targets.i2l_targets, joint_vertices=JOINT_VERTICES)
    return jax.jit(made)


fitted = jax.jit(functools.partial(targets.posed_fit, joint_vertices=JOINT_VERTICES))


def test_i2l_targets_are_the_moved_body(body):
    made = i2l.I2lTransform(i2l.i2l_options(train=True))
    labels, people = labelled(made, random_draws(made, i2l.SLOTS))
    found = numpy(compiled()(body, device(labels)))
    flipped = labels["flipped"] > 0
    vertices = expected_vertices(body, people, flipped, labels["turn_rad"])
    pose = found["pose_param"].reshape(-1, 24, 3)
    again = posed(body, found["shape_param"], pose)
    np.testing.assert_allclose(again, vertices, atol=1e-5)
    ends = vertices[:, list(JOINT_VERTICES)]
    np.testing.assert_allclose(found["fit_joint_cam_m"][:, 24:], ends, atol=1e-5)
    # Seen by the crop's camera, the turned body falls on the cells of its targets.
    rest = rest_joints(body, jnp.asarray(labels["betas"]))[:, 0]
    root = np.asarray(rest) + [p["translation_m"] for p in people]
    root *= np.where(flipped, -1, 1)[:, None] * [1, 0, 0] + [0, 1, 1]
    cos, sin = np.cos(labels["turn_rad"]), np.sin(labels["turn_rad"])
    x, y = root[:, 0], root[:, 1]
    root = np.stack([cos * x - sin * y, sin * x + cos * y, root[:, 2]], 1)
    seen = np.einsum(
        "bij,bnj->bni", labels["crop_intrinsics"], vertices + root[:, None]
    )
    cells = seen[..., :2] / seen[..., 2:] / 4
    np.testing.assert_allclose(found["fit_mesh_img"][..., :2], cells, atol=2e-3)
    depth = (vertices[..., 2] + 1) * 32
    np.testing.assert_allclose(found["fit_mesh_img"][..., 2], depth, atol=1e-3)
    inside = ((found["fit_mesh_img"] >= 0) & (found["fit_mesh_img"] < 64)).all(-1)
    np.testing.assert_array_equal(found["fit_mesh_trunc"][..., 0], inside)


def test_mirroring_a_mirrored_sample_gives_the_targets_of_the_sample(body):
    straight = i2l.I2lTransform(i2l.i2l_options(train=True, flip=0.0))
    mirror = i2l.I2lTransform(i2l.i2l_options(train=True, flip=1.0))
    draws = random_draws(straight, i2l.SLOTS)
    spec = spec_of(i2l.BODY_LABELS)
    flips = {
        "joints": i2l.BODY_LABELS.flip_permutation,
        "pose": FLIP,
        "h36m": JOINT_SETS["h36m_17"].flip_permutation,
    }
    people = [person(i, 31) for i in range(6)]
    found = []
    for made, records in (
        (straight, people),
        (mirror, [mirrored_person(p, flips, True) for p in people]),
    ):
        checked = [schema.validate(r, spec) for r in records]
        labels, _ = made.labels(batch_of(checked, spec, made), draws)
        found.append(numpy(compiled()(body, device(numpy(labels)))))
    for key, value in found[0].items():
        limit = 0.3 if key == "fitting_error" else 3e-3
        np.testing.assert_allclose(found[1][key], value, atol=limit, err_msg=key)


def test_good_fits_are_kept_and_bad_ones_rejected(body):
    made = i2l.I2lTransform(i2l.i2l_options(train=False))
    count, draws = 6, uniforms_of(i2l.SLOTS, 6)
    labels, people = labelled(made, draws)
    stack = {k: np.stack([p[k] for p in people]) for k in ("betas", "pose_aa")}
    vertices = posed(body, stack["betas"], stack["pose_aa"])
    h36m = np.asarray(body.extra_joint_regressors["h36m_right_first_17"]) @ vertices
    moved = np.linspace(0, 0.1, count)[:, None] * np.where(np.arange(17) % 2, 1, -1)
    h36m[..., 0] += moved
    known = np.ones((count, 17, 1))
    labels["fit_check_cam_m"] = np.concatenate([h36m, known], -1).astype(np.float32)
    found = numpy(compiled()(body, device(labels)))
    expected = np.abs(moved - moved.mean(1, keepdims=True)).mean(1) * 1000
    np.testing.assert_allclose(found["fitting_error"], expected, atol=0.05)
    good = (expected <= 25).astype(np.float32)
    np.testing.assert_array_equal(found["is_valid_fit"][:, 0], good)
    assert 0 < good.sum() < count
    assert found["fit_mesh_img"].any((1, 2)).all()


def test_a_perfect_2d_fit_off_the_middle_is_rejected_only_as_published(body):
    made = i2l.I2lTransform(i2l.i2l_options(train=False))
    changes = {"translation_m": np.array([0.9, 0.0, 3.0]), "has_joints_3d": 0}
    labels, _ = labelled(made, uniforms_of(i2l.SLOTS, 6), **changes)
    batch = device(labels)
    vertices, _ = fitted(body, batch)
    coco = body.extra_joint_regressors["coco_17"] @ vertices
    hips = (coco[:, 11] + coco[:, 12]) / 2
    joints = jnp.concatenate([coco, hips[:, None]], 1)
    cells, _ = targets.to_heatmap(joints, jnp.zeros((6, 3)), batch)
    slots = jnp.array(targets._COCO_SLOTS)
    image = batch["orig_joint_img"].at[:, slots, :2].set(cells[..., :2])
    valid = batch["orig_joint_valid"].at[:, slots].set(1.0)
    batch |= {"orig_joint_img": image, "orig_joint_valid": valid}
    error = functools.partial(
        targets.fit_error_cells, body, vertices, batch, cells_per_px=0.25
    )
    assert np.asarray(error()).max() < 1e-2
    assert np.asarray(error(published_pelvis=True)).min() > 0.5
    found = compiled()(body, batch)
    assert np.asarray(found["is_valid_fit"]).all()


def test_points_in_the_cameras_plane_and_behind_it_are_not_in_the_heatmap():
    points = jnp.zeros((1, 3, 3)).at[0, :, 2].set(jnp.array([2.0, 0.0, -0.5]))
    batch = {
        "intrinsics": jnp.array([[[50.0, 0, 128], [0, 50, 128], [0, 0, 1]]]),
        "image_to_crop": jnp.array([[[1.0, 0, 0], [0, 1, 0]]]),
    }
    _, inside = targets.to_heatmap(points, jnp.zeros((1, 3)), batch, depth_range_m=5.0)
    np.testing.assert_array_equal(inside[0, :, 0], [1, 0, 0])


def test_a_shape_far_from_the_mean_is_no_target_but_its_mesh_is(body):
    made = i2l.I2lTransform(i2l.i2l_options(train=False))
    betas = np.array([3.5, *[0.2] * 9])
    labels, _ = labelled(made, uniforms_of(i2l.SLOTS, 6), betas=betas)
    found = numpy(compiled()(body, device(labels)))
    assert not found["shape_param"].any()
    near, _ = labelled(made, uniforms_of(i2l.SLOTS, 6), betas=betas * 0.8)
    other = numpy(compiled()(body, device(near)))
    np.testing.assert_allclose(other["shape_param"], near["betas"])
    assert np.abs(found["fit_mesh_img"] - other["fit_mesh_img"]).max() > 0.01


def test_translations_of_the_world_follow_with_the_camera(body):
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    extrinsics = np.eye(4)
    extrinsics[:3, :3], extrinsics[:3, 3] = rotation, [0.1, 0.2, 3.0]
    root, world = rng.standard_normal((2, 1, 3))
    batch = {
        "translation_m": np.zeros((1, 3)),
        "translation_world_m": world,
        "extrinsics": extrinsics[None],
    }
    batch = {k: jnp.asarray(v, jnp.float32) for k, v in batch.items()}
    root_m = jnp.asarray(root, jnp.float32)
    found = targets.camera_translation(batch, root_m)
    expected = rotation @ (root + world)[0] + extrinsics[:3, 3] - root[0]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    given = batch | {"translation_m": jnp.ones((1, 3))}
    np.testing.assert_array_equal(targets.camera_translation(given, root_m), [[1] * 3])


def test_a_body_without_the_regressors_is_refused(tiny_body):
    vertices = jnp.zeros((1, tiny_body.num_vertices, 3))
    with pytest.raises(ValueError, match="coco_17"):
        targets.fit_error_cells(tiny_body, vertices, {}, cells_per_px=0.25)


def test_the_h36m_regressor_may_have_either_order(body):
    index, _ = map_joints("h36m_right_first_17", "h36m_17")
    regressors = dict(body.extra_joint_regressors)
    h36m = regressors.pop("h36m_right_first_17")
    import dataclasses

    other = dataclasses.replace(
        body, extra_joint_regressors=regressors | {"h36m_17": h36m[index]}
    )
    vertices = jnp.asarray(
        np.random.default_rng(0).uniform(size=(2, 80, 3)), jnp.float32
    )
    target = jnp.ones((2, 17, 4)) * jnp.arange(17)[None, :, None]
    one, two = (targets.fit_error_mm(b, vertices, target) for b in (body, other))
    np.testing.assert_allclose(one, two, rtol=1e-5)
