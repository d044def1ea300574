"""HRNet against stored values with converted stand-in weights, and its decoding."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.convert import convert_checkpoint
from hmr_jax.convert.hrnet import CHECKPOINT as HRNET
from hmr_jax.geometry.crops import box_of_image
from hmr_jax.nn import hrnet, pose2d
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors

STRIDES = {  # channels, rows, columns that are stored
    "layer1": (16, 8, 8),
    **{f"stage{stage}_{branch}": (12, 6, 6) for stage, branch in [(2, 0), (2, 1)]},
    **{f"stage3_{branch}": (12, 6, 6) for branch in range(3)},
    "stage4_0": (12, 6, 6),
}


@pytest.fixture(scope="module")
def stored(parity_dir):
    return load_vectors(parity_dir, "hrnet")


@pytest.fixture(scope="module")
def apply(parity_dir, recipe):
    path = parity_dir / "hierprob" / "manifest_hrnet.json"
    state = recipe.fill_state_dict(json.loads(path.read_text()), SEED)
    variables = convert_checkpoint(HRNET, state)
    net = jax.jit(functools.partial(hrnet.HRNet().apply, train=False))
    return functools.partial(net, variables)


@pytest.mark.slow
def test_published_network(parity_dir, recipe, stored, apply):
    inputs = load_inputs(parity_dir, recipe)
    x = inputs.normal("hrnet", SEED, 1, 3, 384, 288)
    out = apply(jnp.asarray(x.transpose(0, 2, 3, 1)))
    nchw = {name: np.moveaxis(np.asarray(a), -1, 1) for name, a in out.items()}
    expected = stored["heatmaps"]
    np.testing.assert_allclose(
        nchw["heatmaps"], expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )
    for name, (channels, rows, columns) in STRIDES.items():
        found = nchw[name][:, ::channels, ::rows, ::columns]
        expected = stored[f"{name}_sub"]
        atol = 2e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)
        if f"{name}_meanstd" in stored:
            wide = nchw[name].astype(np.float64)
            found = [wide.mean(), wide.std()]
            np.testing.assert_allclose(found, stored[f"{name}_meanstd"], rtol=1e-5)
    joints, confidence = hrnet.decode_heatmaps(out["heatmaps"])
    np.testing.assert_array_equal(joints, 4 * stored["kp"])
    scale = np.abs(stored["conf"]).max()
    np.testing.assert_allclose(confidence, stored["conf"], rtol=0, atol=2e-5 * scale)


@pytest.mark.slow
def test_published_pipeline_on_a_whole_picture(parity_dir, recipe, stored, apply):
    """Crop, joints and second crop of the original's prediction."""
    inputs = load_inputs(parity_dir, recipe)
    raw = inputs.image("hrnetimg", SEED, 1, 300, 200)
    images = jnp.asarray(raw.transpose(0, 2, 3, 1).astype(np.float32) / 255)
    out = pose2d.detect_joints(apply, images, box_of_image(300, 200, (1,)))
    centre, size = out["crop_box_px"][0, :2], out["crop_box_px"][0, 2:]
    np.testing.assert_allclose(centre[::-1], stored["pred_bbox_centre"], atol=1e-5)
    expected = [stored["pred_bbox_width"], stored["pred_bbox_height"]]
    # stored before the margin
    np.testing.assert_allclose(size, 1.2 * np.array(expected), rtol=1e-6)
    crop = np.moveaxis(np.asarray(out["crops"][0]), -1, 0)[:, ::8, ::8]
    # The original's own rounding shifts its crop by 1.6e-5 pixels: it is 2.1e-5 off
    # the exact values, ours 6e-6.
    np.testing.assert_allclose(crop, stored["pred_cropped_sub"], rtol=0, atol=3e-5)
    joints, confidence = out["crop_joints_px"][0], out["confidence"][0]
    np.testing.assert_array_equal(joints, stored["pred_joints2D"])
    expected = stored["pred_joints2Dconfs"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(confidence, expected, rtol=0, atol=2e-5 * scale)
    second = np.moveaxis(np.asarray(out["proxy_images"]), -1, 1)[..., ::4, ::4]
    np.testing.assert_allclose(second, stored["proxy_rgb_sub"], rtol=0, atol=3e-5)
    found = out["proxy_joints_px"]
    np.testing.assert_allclose(found, stored["proxy_joints2d"], rtol=0, atol=1e-4)
    bands = np.asarray(out["proxy_images"])
    assert bands[:, :, :32].max() == bands[:, :, 224:].max() == 0


def test_a_small_network_has_the_published_shape():
    net = hrnet.HRNet(width=4, num_joints=5)
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    out, variables = jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), x, train=False), images
    )
    assert out["heatmaps"].shape == (1, 16, 24, 5)
    assert out["stage3_2"].shape == (1, 4, 6, 16)
    assert "stage4_1" not in out
    assert set(variables["params"]["stage4_2"]) >= {"fuse0_3", "branch3_3"}
    assert "fuse1_0_0" not in variables["params"]["stage4_2"]
    with pytest.raises(ValueError, match="multiples of 32, got 64 x 90"):
        jax.eval_shape(
            lambda x: net.init(jax.random.key(0), x, train=False),
            jax.ShapeDtypeStruct((1, 64, 90, 3), jnp.float32),
        )


def test_joints_at_maxima():
    maps = jnp.zeros((1, 8, 6, 4)).at[0, 5, 2, 0].set(0.9)
    maps = maps.at[0, 5, 3, 0].set(0.5).at[0, 4, 2, 0].set(0.4)
    maps = maps.at[..., 1].set(-1.0).at[0, 0, 0, 2].set(jnp.nan)
    maps = maps.at[0, 7, 0, 3].set(0.8)
    joints, confidence = hrnet.decode_heatmaps(maps)
    expected = [[[8, 20], [0, 0], [0, 0], [0, 28]]]
    np.testing.assert_array_equal(joints, expected)
    np.testing.assert_allclose(confidence, [[0.9, -1, 0, 0.8]])
    refined, _ = hrnet.decode_heatmaps(maps, refine=True)
    # a quarter of a cell right and up; none at the border
    expected = [[[9, 19], [0, 0], [0, 0], [0, 28]]]
    np.testing.assert_array_equal(refined, expected)


def test_uncertain_limbs_are_not_visible():
    confidence = jnp.full((1, 17), 0.5).at[0, 9].set(0.8).at[0, 0].set(jnp.nan)
    seen = hrnet.visible_joints(confidence)
    expected = np.ones(17, bool)
    expected[[0, 7, 8, 10, 13, 14, 15, 16]] = False
    np.testing.assert_array_equal(seen, [expected])
