"""Reading the owners' files: broken ones are named, deep pictures stay pictures."""

import io

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_pipelines.builders import indexed
from data_pipelines.builders.raw import RawSource
from data_pipelines.schema import RecordError


class Nothing(RawSource):
    name = "nothing"

    def splits(self):
        return ()

    def keys(self, split):
        return ()


def test_a_mat_file_cut_short_is_named(tmp_path):
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, {"joints": np.ones((3, 14, 2))})
    whole = path.read_bytes()
    for length in (0, 1, 100, 126, 130, 140, 200, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match=r"nothing: .*joints.mat: expected a MAT"):
            Nothing(str(tmp_path)).read_mat(str(path), "joints")


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_gray_of_16_bits_is_scaled(tmp_path, mode):
    levels = np.array([[0, 257, 128 * 257], [200 * 257, 65535, 130]])
    kind = np.uint16 if mode == "I;16" else np.int32
    buffer = io.BytesIO()
    image = Image.fromarray(levels.astype(kind))
    assert image.mode == mode
    image.save(buffer, "PNG" if mode == "I;16" else "TIFF")
    found = Nothing(str(tmp_path)).image_fields(buffer.getvalue(), "deep.png")
    with Image.open(io.BytesIO(found["image"])) as image:
        assert (image.mode, image.size) == ("RGB", (3, 2))
        pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels[..., 0], [[0, 1, 128], [200, 255, 1]])


def test_a_picture_of_another_size():
    record = {"image_width": 64, "image_height": 48}
    size = {"width": 64, "height": 48}
    assert indexed.same_size(Nothing("x"), record, size, "a.jpg") is record
    message = "nothing: a.jpg: expected 48 x 64 pixels as annotated, found 64 x 48"
    with pytest.raises(RecordError, match=message):
        turned = {"width": 48, "height": 64}
        indexed.same_size(Nothing("x"), record, turned, "a.jpg")
