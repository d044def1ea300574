"""Evaluation crops of hierarchical distributions, against plain numpy."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines import schema
from data_pipelines.transforms import hierprob
from tests.data_pipelines.people import encode_image
from tests.data_pipelines.transforms.batches import batch_of, rendered, uniforms_of
from tests.data_pipelines.transforms.people import person

SPEC = schema.RecordSpec("coco_17", 17)


def record(index, size, **changes):
    """A person in a picture of noise, with a mask."""
    rng = np.random.default_rng(index)
    width, height = size
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, 2, (height, width), dtype=np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    made = person(index, 17) | {
        "image": encode_image(picture),
        "image_width": width,
        "image_height": height,
        "mask": buffer.getvalue(),
        "has_mask": 1,
        "gender": "male" if index % 2 else "female",
        **changes,
    }
    return schema.validate(made, SPEC), picture, mask


def made_batch(dataset, records, **options):
    transform = hierprob.HierprobTransform(
        hierprob.hierprob_options(dataset, **options)
    )
    draws = uniforms_of(_Slots, len(records))
    labels, plan = transform.labels(batch_of(records, SPEC, transform), draws)
    return {k: v.numpy() for k, v in labels.items()}, rendered(transform, plan)


class _Slots:
    num_uniforms = 1

    @staticmethod
    def split(uniforms):
        return {"unused": uniforms[:, 0]}


def sampled(picture, x, y):
    """Bilinear in float64, black outside; x and y are [S, S]."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    height, width = picture.shape[:2]
    total = np.zeros((*x.shape, picture.shape[2]))
    for down in (0, 1):
        for right in (0, 1):
            column, row = left + right, top + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weight = (x - left if right else 1 - x + left) * inside
            weight = weight * (y - top if down else 1 - y + top)
            values = picture[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            total += weight[..., None] * values
    return total


def test_cropped_frames_are_resized_and_their_sure_joints_rounded():
    confidence = np.linspace(0.3, 0.95, 17)
    pixels = np.random.default_rng(0).uniform(0, 512, (17, 2))
    keypoints = np.column_stack([pixels, confidence])
    made, picture, _ = record(0, (512, 512), keypoints_px=keypoints)
    labels, images = made_batch("pw3d", [made])
    # Half the size, pixels as squares: the mean of each two by two.
    expected = picture.reshape(256, 2, 256, 2, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(images[0], expected, atol=1e-4)
    found = labels["keypoints_px"][0]
    np.testing.assert_array_equal(found[:, :2], np.round(keypoints[:, :2] / 2))
    unsure = np.isin(np.arange(17), [7, 8, 9, 10, 13, 14, 15, 16])
    expected = np.where(unsure & (confidence <= 0.6), 0, confidence)
    np.testing.assert_allclose(found[:, 2], expected, rtol=1e-6)
    np.testing.assert_allclose(labels["keypoints_exact_px"][0][:, 2], confidence)


def test_boxes_are_cut_with_their_masks():
    people = [record(i, (300, 260)) for i in range(2)]
    labels, images = made_batch("ssp_3d", [p[0] for p in people])
    np.testing.assert_array_equal(labels["gender"], [2, 1])
    for i, (made, picture, mask) in enumerate(people):
        x, y, w, h = made["bbox_xywh_px"].astype(np.float64)
        side = 1.2 * max(w, h)
        grid = np.mgrid[:256, :256]
        column = (grid[1] - 128) * side / 256 + x + w / 2
        row = (grid[0] - 128) * side / 256 + y + h / 2
        expected = sampled(picture, column, row) / 255
        np.testing.assert_allclose(images[i, ..., :3], expected, atol=2e-4)
        near = np.stack([np.floor(row + 0.5), np.floor(column + 0.5)]).astype(int)
        inside = (near >= 0).all(0) & (near[0] < 260) & (near[1] < 300)
        value = mask[near[0].clip(0, 259), near[1].clip(0, 299)] > 0
        agree = images[i, ..., 3] == (value & inside)
        assert agree.mean() > 0.9999
        exact = (made["keypoints_px"][:, :2] - [x + w / 2, y + h / 2]) * 256 / side
        found = labels["keypoints_exact_px"][i, :, :2]
        np.testing.assert_allclose(found, exact + 128, atol=1e-3)
        np.testing.assert_array_equal(labels["keypoints_px"][i, :, :2], np.trunc(found))


def test_predictions_sample_pixels_as_squares():
    made, picture, _ = record(3, (300, 260))
    labels, images = made_batch("predict", [made])
    x, y, w, h = made["bbox_xywh_px"].astype(np.float64)
    side = 1.2 * max(w, h)
    grid = np.mgrid[:256, :256]
    column = (grid[1] + 0.5 - 128) * side / 256 + x + w / 2 - 0.5
    row = (grid[0] + 0.5 - 128) * side / 256 + y + h / 2 - 0.5
    expected = sampled(picture, column, row) / 255
    np.testing.assert_allclose(images[0], expected, atol=2e-4)
    np.testing.assert_array_equal(
        labels["keypoints_px"][0, :, :2], labels["keypoints_exact_px"][0, :, :2]
    )


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="expected one of .*found 'coco'"):
        hierprob.hierprob_options("coco")
    with pytest.raises(ValueError, match="rounding: expected one of .*found 'up'"):
        hierprob.hierprob_options("pw3d", rounding="up")
