"""Reading the owners' files: broken ones are named, deep pictures stay pictures."""

import io
import json

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_pipelines.builders import annotation_lists
from data_pipelines.builders.label_values import gender_of
from data_pipelines.builders.published_dataset import PublishedDataset
from data_pipelines.builders.published_files import UnreadableImageError
from data_pipelines.builders.record_source import checked_keys
from data_pipelines.schema import RecordError
from hmr_jax import pictures


class Nothing(PublishedDataset):
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


def as_file(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    """EXIF data that turns a picture."""
    exif = Image.Exif()
    exif[274] = orientation
    return exif


RNG = np.random.default_rng(0)
COLOURS = Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8))
SMOOTH = Image.fromarray(np.full((6, 9, 3), (200, 90, 30), np.uint8))
PICTURES = {
    "CMYK": as_file(SMOOTH.convert("CMYK"), "JPEG"),
    "palette": as_file(COLOURS.convert("P"), "PNG"),
    "alpha": as_file(COLOURS.convert("RGBA"), "PNG"),
    "turned": as_file(COLOURS, "JPEG", exif=turned(6)),
    "bmp": as_file(COLOURS, "BMP"),
    "webp": as_file(COLOURS, "WEBP", lossless=True),
    "floats": as_file(
        Image.fromarray(np.linspace(0, 1, 54, dtype="f4").reshape(6, 9)), "TIFF"
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_means_the_same_as_everywhere(name):
    """What ``predict`` and the backgrounds read is what the record shows."""
    meant = pictures.decode_picture(PICTURES[name], name)
    found = Nothing("x").image_fields(PICTURES[name], name)
    assert meant.shape[:2] == (found["image_height"], found["image_width"])
    with Image.open(io.BytesIO(found["image"])) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), meant)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_files_are_kept_byte_by_byte(kind, mode):
    data = as_file(COLOURS.convert(mode), kind)
    assert Nothing("x").image_fields(data, "a")["image"] == data


def test_labels_of_a_turned_picture_are_in_the_frame_that_has_their_size():
    data, stored = (
        PICTURES["turned"],
        np.asarray(Image.open(io.BytesIO(PICTURES["turned"]))),
    )
    for size, pixels in (((6, 9), np.rot90(stored, -1)), ((9, 6), stored)):
        found = Nothing("x").image_fields(data, "a.jpg", size)
        assert (found["image_width"], found["image_height"]) == size
        shown = np.asarray(Image.open(io.BytesIO(found["image"])))
        assert np.abs(shown.astype(int) - pixels).max() <= 2  # two JPEG decoders


@pytest.mark.parametrize(
    "data",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"", b"GIF89a" + bytes(40)],
)
def test_other_formats_are_never_decoded(data, tmp_path):
    (tmp_path / "a.jpg").write_bytes(data)
    source = Nothing(str(tmp_path))
    for read in (source.read_image, source.image_size):
        with pytest.raises(
            UnreadableImageError, match="a.jpg: expected an image: .*JPEG"
        ):
            read(str(tmp_path / "a.jpg"))


def test_the_size_of_a_picture_is_that_of_the_upright_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PICTURES["turned"])
    assert Nothing(str(tmp_path)).image_size(str(tmp_path / "a.jpg")) == (6, 9)


SPELLINGS = {
    "sub/a.png": ["sub\\a.png", "./sub/a.png", "a.png", "old/sub/a.png", "sub/a"],
    "caf\u00e9.png": ["cafe\u0301.png"],
    "COCO_val2014_000000000139.jpg": ["000000000139.jpg"],
}


@pytest.mark.parametrize(
    ("lies", "said"), [(lies, said) for lies in SPELLINGS for said in SPELLINGS[lies]]
)
def test_names_of_pictures_in_any_spelling(tmp_path, lies, said):
    path = tmp_path / "images" / lies
    path.parent.mkdir(parents=True)
    path.write_bytes(as_file(COLOURS, "PNG"))
    (tmp_path / "images" / "._a.png").write_bytes(b"")
    found = Nothing(str(tmp_path)).read_named(str(tmp_path / "images"), said)
    assert found["image_width"] == 9


def test_a_picture_of_the_same_name_in_another_folder_is_not_meant(tmp_path):
    path = tmp_path / "S1" / "a.png"
    path.parent.mkdir()
    path.write_bytes(as_file(COLOURS, "PNG"))
    with pytest.raises(UnreadableImageError, match=r"S2/a.png: .*no such file"):
        Nothing(str(tmp_path)).read_named(str(tmp_path), "S2/a.png")


def test_hidden_files_are_no_data(tmp_path):
    folder = tmp_path / ".data" / "labels"  # the folder given may itself be hidden
    folder.mkdir(parents=True)
    for name in ("a.pkl", "._a.pkl", ".DS_Store", "b.pkl", "__MACOSX"):
        (folder / name).write_bytes(b"")
    source = Nothing(str(tmp_path / ".data"))
    for _ in range(2):
        found = source.glob("train", "labels", "*")
        assert [path.rpartition("/")[2] for path in found] == ["a.pkl", "b.pkl"]
    assert source.dropped == {("train", "hidden file, no data"): 3}


@pytest.mark.parametrize(
    ("code", "gender"),
    [
        *(("m", "male"), ("F", "female"), ("n", "neutral"), ("Female", "female")),
        *(
            (b"m", "male"),
            (np.array("neutral"), "neutral"),
            (np.str_(" male "), "male"),
        ),
    ],
)
def test_genders(code, gender):
    assert gender_of(Nothing("x"), "a.npz: row 3", code) == gender


@pytest.mark.parametrize("code", ["x", "", "man", 2, None, "fem"])
def test_unknown_genders_are_named(code):
    message = "nothing: a.npz: row 3: expected m, f, n, .*found"
    with pytest.raises(RecordError, match=message):
        gender_of(Nothing("x"), "a.npz: row 3", code)


class Labelled(Nothing):
    """Reads a JSON file as if it were a list of numbers in ``numbers``."""

    def splits(self):
        return ("train",)

    def keys(self, split):
        content = self.read_json(self.path("labels.json"))
        return [entry["key"] + 1 for entry in content["numbers"]]


@pytest.mark.parametrize(
    "text",
    ["[1]", "7", '{"numbers": 3}', '{"numbers": [{}]}', '{"numbers": [{"key": "a"}]}'],
)
def test_labels_of_another_form_end_in_an_error_that_names_the_file(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    source = Labelled(str(tmp_path))
    with pytest.raises(RecordError, match=r"nothing: split train: .*labels.json"):
        checked_keys(source, "train")


COCO_LIKE = {
    "images": [{"id": 5, "file_name": "a\\b.jpg"}],
    "annotations": [
        {"image_id": 5, "bbox": [0, 0, 2, 2]},
        {"image_id": 5, "bbox": [0, 0, 2, 2], "keypoints": None},
        {"image_id": 5, "bbox": [0, 0, 2, 2], "keypoints": []},
        {"image_id": 5, "keypoints": [1, 2, 3]},
        {"image_id": 5, "bbox": [0, 0, 2, 2], "keypoints": [1, 2, 3]},
    ],
}


def test_annotations_without_labels_are_left_out_and_counted(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(COCO_LIKE), encoding="utf-8-sig")
    source = Nothing(str(tmp_path))
    names = (("file_name",), (), ("bbox", "keypoints"))
    images, found = annotation_lists.coco_lists(source, "train", str(path), *names)
    assert images[5]["file_name"] == "a/b.jpg"
    assert [(a["position"], a["keypoints"]) for a in found] == [(4, [1, 2, 3])]
    assert source.dropped == {
        ("train", "annotation without keypoints"): 3,
        ("train", "annotation without bbox"): 1,
    }
    path.write_text(json.dumps(COCO_LIKE | {"annotations": [{"image_id": 5}] * 2}))
    message = r"a.json: expected annotations with 'bbox', 'keypoints', found 2 without"
    with pytest.raises(RecordError, match=message):
        annotation_lists.coco_lists(source, "train", str(path), *names)


def test_records_without_labels_in_lists_side_by_side(tmp_path):
    path = tmp_path / "a.json"
    annotations = COCO_LIKE["annotations"]
    pairs = {"images": COCO_LIKE["images"] * 5, "annotations": annotations}
    path.write_text(json.dumps(pairs))
    source = Nothing(str(tmp_path))
    found = annotation_lists.paired_lists(
        source, "train", str(path), ("file_name",), ("bbox", "keypoints")
    )
    assert [annotation["keypoints"] for _, annotation in found] == [[1, 2, 3]]
    assert sum(source.dropped.values()) == 4


def test_a_picture_of_another_size():
    record = {"image_width": 64, "image_height": 48}
    size = {"width": 64, "height": 48}
    assert Nothing("x").same_size(record, size, "a.jpg") is record
    message = "nothing: a.jpg: expected 48 x 64 pixels as annotated, found 64 x 48"
    with pytest.raises(RecordError, match=message):
        turned = {"width": 48, "height": 64}
        Nothing("x").same_size(record, turned, "a.jpg")
