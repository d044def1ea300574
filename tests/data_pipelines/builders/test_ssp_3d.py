"""SSP-3D: every label by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.builders.ssp_3d import Ssp3d
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written


def write(folder, number=3, modes=("L", "RGB", "1")):
    rng = np.random.default_rng(12)
    labels = {
        "fnames": np.array([f"clip{i}.png" for i in range(number)]),
        "shapes": rng.normal(size=(number, 10)),
        "poses": rng.normal(size=(number, 72)),
        "joints2D": rng.uniform(0, 30, (number, 17, 3)),
        "bbox_centres": rng.uniform(10, 20, (number, 2)),
        "bbox_whs": rng.uniform(10, 30, number),
        "genders": np.array(["m", "f", "m"][:number]),
        "cam_trans": np.zeros((number, 3)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "labels.npz", **labels)
    masks = rng.integers(0, 2, (number, 36, 48)).astype(bool)
    (folder / "silhouettes").mkdir()
    for i, name in enumerate(labels["fnames"]):
        written.write_image(folder / "images" / name, seed=i)
        mask = Image.fromarray(masks[i].astype(np.uint8) * 255).convert(modes[i])
        mask.save(folder / "silhouettes" / name)
    return labels, masks


def test_every_label(tmp_path):
    labels, masks = write(tmp_path / "raw")

    def make():
        return Ssp3d(str(tmp_path / "raw"))

    found = written.read_all(make(), "test")
    assert make().counts == {"test": 311}
    for i, record in enumerate(found.values()):
        row, column = labels["bbox_centres"][i]
        side = labels["bbox_whs"][i]
        name = str(labels["fnames"][i])
        written.same(
            record,
            {
                "keypoints_px": labels["joints2D"][i],
                "pose_aa": labels["poses"][i].reshape(24, 3),
                "betas": labels["shapes"][i],
                "translation_m": np.zeros(3),
                "has_root": 0,
                "has_smpl": 1,
                "bbox_xywh_px": [column - side / 2, row - side / 2, side, side],
                "gender": ["male", "female", "male"][i],
                "sequence_id": name,
                "image": (tmp_path / "raw" / "images" / name).read_bytes(),
            },
        )
        mask = Image.open(io.BytesIO(record["mask"]))
        assert mask.mode == "L" and mask.format == "PNG"
        np.testing.assert_array_equal(np.asarray(mask) > 0, masks[i])
    written.same_records(written.built(make, tmp_path / "out", "test"), found)


def test_another_release(tmp_path):
    labels, _ = write(tmp_path)
    path = tmp_path / "labels.npz"
    for change, text in (
        (
            {"genders": np.array(["m", "x", "f"])},
            "row 1: expected m, f",
        ),
        ({"bbox_whs": np.zeros((3, 2))}, r"bbox_whs of shape \[3\]"),
    ):
        np.savez(path, **(labels | change))
        with pytest.raises(RecordError, match=f"ssp_3d: .*{text}"):
            written.read_all(Ssp3d(str(tmp_path)), "test")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordError, match=r"labels.npz: expected an .npz archive"):
        Ssp3d(str(tmp_path)).keys("test")
