"""From crops to bodies in the picture; the stand-in network knows the body."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.forward import body_forward
from hmr_jax.geometry.cameras import to_camera_axes
from hmr_jax.systems.ikol import people as rooms
from hmr_jax.systems.system import Seen

SIDE, SIZE, COUNT = 384, 64, 3
FOCAL_PX = 600.0
BOX_PX = 220.0


def camera():
    """Crops of 220 pixels somewhere in pictures of one camera."""
    corners = np.array([[40.0, 30.0], [200.0, 60.0], [100.0, 100.0]])
    affine = np.zeros((COUNT, 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = BOX_PX / SIDE
    affine[:, :, 2] = corners
    matrix = np.array([[FOCAL_PX, 0, 240], [0, FOCAL_PX, 180], [0, 0, 1.0]])
    return affine, np.tile(np.linalg.inv(matrix), (COUNT, 1, 1))


@pytest.fixture(scope="module")
def truth(open_body):
    rng = np.random.default_rng(0)
    pose = 0.3 * rng.standard_normal((COUNT, 24, 3))
    pose[:, 0, 0] += np.pi  # upright before a camera whose y points down
    betas = jnp.asarray(rng.standard_normal((COUNT, 10)), jnp.float32)
    posed = body_forward(open_body, betas, jnp.asarray(pose, jnp.float32))
    joints = np.asarray(posed.joints_m - posed.joints_m[:, :1], np.float64)
    root = np.array([[-0.3, -0.2, 4.0], [0.2, 0.1, 5.0], [0.1, 0.4, 6.0]])
    return joints, root, betas


def test_people_are_put_where_their_bones_have_the_right_length(
    truth, open_body, monkeypatch
):
    joints, root, betas = truth
    affine, inverse = camera()
    there = joints + root[:, None]
    image = there @ np.linalg.inv(inverse).swapaxes(-1, -2)
    image = image[..., :2] / image[..., 2:]
    crop = (image - affine[:, None, :, 2]) / (BOX_PX / SIDE)
    uvd = np.concatenate([crop / SIDE - 0.5, joints[..., 2:] / 2.0], -1)

    def network(variables, images):
        assert images.shape == (COUNT, SIZE, SIZE, 3)
        count = len(images)
        return {
            "uvd": jnp.asarray(uvd, jnp.float32),
            "shape": betas,
            "delta_shape": betas,
            "twist": jnp.tile(jnp.array([1.0, 0.0]), (count, 23, 1)),
            "leaf_quaternions": jnp.tile(jnp.array([1.0, 0, 0, 0]), (count, 5, 1)),
        }

    from tests.test_configs import load

    config, _ = load("quickstart", "quicktest")
    with config.unlocked():
        config.image_size_px = SIZE
    _, to_body = rooms.make_predict(config, rooms.make_model(config))
    monkeypatch.setattr(rooms, "make_predict", lambda *_: (network, to_body))
    monkeypatch.setattr(rooms, "normalization", lambda _: ((0.0,) * 3, (1.0,) * 3))
    predict = jax.jit(rooms.people(config, {}))
    crops = jnp.zeros((COUNT, SIDE, SIDE, 3))
    seen = Seen(
        crops,
        jnp.asarray(affine, jnp.float32),
        jnp.asarray(inverse, jnp.float32),
        None,
        None,
        None,
    )
    found = predict({}, open_body, seen)
    np.testing.assert_allclose(found["root_cam_m"], root, atol=2e-3)
    np.testing.assert_allclose(found["joints2d_crop_px"], crop, atol=0.3)
    # y up, about the root
    expected = np.asarray(to_camera_axes(jnp.asarray(joints, jnp.float32)))
    np.testing.assert_allclose(found["joints_m"], expected, atol=2e-3)
    shown = found["camera"][:, :1, None] * (
        joints[..., :2] + found["camera"][:, None, 1:]
    )
    np.testing.assert_allclose((shown + 1) * SIDE / 2, crop, atol=20)
