"""The data command on a small published dataset: build, list, check, show."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines import records, schema
from data_pipelines.builders import catalog, layouts
from data_pipelines.builders.published_dataset import PublishedDataset
from hmr_jax.__main__ import main
from tests.data_pipelines.people import encode_image, make_record


class Toy(PublishedDataset):
    """People in images with one annotation file."""

    name = "toy"
    description = "People made for a test."
    needs = ("annot.json", "images/*.png")
    origin = "this test"
    licence = "none"
    counts = {"train": 6, "test": 2}

    def __init__(self, raw, *, fold: int = 0, flipped: bool = False, parts=("a",)):
        super().__init__(raw)
        self.options = {"fold": fold, "flipped": flipped, "parts": parts}

    def splits(self):
        return ("train", "test")

    def config(self):
        return self.options

    def keys(self, split):
        content = self.read_json(self.path("annot.json"))
        self.drop(split, "no image given", content["without_image"])
        return content[split]

    def example(self, split, key):
        record = make_record(int(key))
        return record | self.read_image(self.path("images", f"{key}.png"))


@pytest.fixture
def raw(tmp_path, monkeypatch):
    toys = {layouts.ORIGINAL: layouts.Layout("nowhere:Toy")}
    monkeypatch.setattr(layouts, "DATASETS", {"toy": toys})
    monkeypatch.setattr(catalog, "load", lambda choice: Toy)
    folder = tmp_path / "raw"
    (folder / "images").mkdir(parents=True)
    for number in range(7):
        record = make_record(number)
        (folder / "images" / f"{number}.png").write_bytes(record["image"])
    content = {"train": [0, 1, 2, 3, 4], "test": [5, 6], "without_image": 2}
    (folder / "annot.json").write_text(json.dumps(content))
    return folder


def run(capfd, *words, code=0):
    capfd.readouterr()
    assert main(["data", *(str(word) for word in words)]) == code
    out, error = capfd.readouterr()
    assert "Traceback" not in error
    return out if code == 0 else error


def test_build_reports_what_it_did(raw, tmp_path, capfd):
    argv = ["build", "toy", f"--raw={raw}", f"--out={tmp_path}/out"]
    out = run(capfd, *argv, "--option=flipped=true", "--option=parts=a,b")
    assert "train: 5 records (public release: 6)" in out
    assert "train: dropped 2: no image given" in out
    assert "warning: toy: split train: the public release gives 6" in out
    path = records.find_directory(tmp_path / "out")
    config = records.open_directory(path).manifest["config"]
    assert config == {"fold": 0, "flipped": True, "parts": ["a", "b"]}
    out = run(capfd, "check", tmp_path / "out")
    assert "good (train 5, test 2)" in out
    assert "warning: toy: split train" in out
    assert "120 projected joints" in out
    assert "train 5 (smpl_24)" not in run(capfd, "list", raw)
    assert "test 2, train 5 (smpl_24)" in run(capfd, "list", tmp_path)


def test_a_part_of_a_dataset(raw, tmp_path, capfd):
    argv = ["build", "toy", f"--raw={raw}", f"--out={tmp_path}/out"]
    out = run(capfd, *argv, "--split=train", "--limit=3")
    assert "train: 3 records\n" in out
    assert "warning" not in out
    assert records.verify(tmp_path / "out") == {"train": 3}
    error = run(capfd, *argv, code=1)
    assert "config.limit: expected None, found 3" in error
    error = run(capfd, *argv, "--split=val", code=1)
    assert "split: expected one of train, test, found val" in error


def test_a_dataset_whose_files_changed_is_built_again_on_request(raw, tmp_path, capfd):
    (raw / "images" / "1.png").unlink()
    argv = ["build", "toy", f"--raw={raw}", f"--out={tmp_path}/out", "--skip_bad=1"]
    run(capfd, *argv)
    assert "train: 4 records" in run(capfd, *argv)
    (raw / "images" / "1.png").write_bytes(make_record(1)["image"])
    error = run(capfd, *argv, code=1)
    assert "images/1.png: is new" in error and "--rebuild" in error
    assert "train: 5 records" in run(capfd, *argv, "--rebuild")
    assert records.verify(tmp_path / "out") == {"train": 5, "test": 2}


def test_bad_records_are_named_or_left_out(raw, tmp_path, capfd):
    (raw / "images" / "1.png").unlink()
    (raw / "images" / "6.png").write_bytes(b"nothing")
    argv = ["build", "toy", f"--raw={raw}", f"--out={tmp_path}/out"]
    error = run(capfd, *argv, code=1)
    assert f"{raw}/images/1.png: expected an image, found no such file" in error
    error = run(capfd, *argv, "--skip_bad=1", code=1)
    assert "expected at most 1 bad records" in error
    out = run(capfd, *argv, "--skip_bad=2")
    for number in (1, 6):
        assert f"{raw}/images/{number}.png" in out
    assert records.verify(tmp_path / "out") == {"train": 4, "test": 1}


def test_raw_files_and_records_may_be_remote(raw, tmp_path, capfd):
    import tensorflow as tf

    far = f"ram://{tmp_path.name}"
    for path in (p for p in raw.rglob("*") if p.is_file()):
        tf.io.gfile.copy(str(path), f"{far}/raw/{path.relative_to(raw)}")
    out = run(capfd, "build", "toy", f"--raw={far}/raw", f"--out={far}/out")
    assert f"built {far}/out/toy/{schema.SCHEMA_VERSION}" in out
    assert "good (train 5, test 2)" in run(capfd, "check", f"{far}/out")
    assert "test 2, train 5" in run(capfd, "list", f"{far}/out")
    picture = tmp_path / "sheet.png"
    run(capfd, "show", f"{far}/out", "--n=2", f"--picture={picture}")
    assert picture.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "toys"], "expected one of synthetic, toy, found 'toys'"),
        (["build", "toy", "--out=x"], "missing --raw"),
        (["build", "toy", "--raw=RAW"], "missing --out"),
        (["build", "toy", "--raw=RAW", "--out=x", "--option=colour=1"], "fold=0"),
        (["build", "toy", "--raw=RAW", "--out=x", "--option=fold=a"], "expected int"),
        (["build", "toy", "--raw=RAW", "--out=x", "--limit=-1"], "0 or more"),
        (["show", "toys", "--raw=RAW"], "expected one of toy, found 'toys'"),
        (["show", "toy", "--raw=RAW", "--n=0"], "--n: expected at least 1"),
    ],
)
def test_wrong_words_are_refused(raw, capfd, words, message):
    words = [word.replace("RAW", str(raw)) for word in words]
    assert message in run(capfd, *words, code=2)


def test_check_finds_labels_that_disagree(raw, tmp_path, capfd, monkeypatch):
    def shifted(self, split, key):
        record = make_record(int(key))
        if key == 3:
            record["keypoints_px"][7, :2] += [3, 4]
        return record

    monkeypatch.setattr(Toy, "example", shifted)
    out = tmp_path / "out"
    run(capfd, "build", "toy", f"--raw={raw}", f"--out={out}")
    text = run(capfd, "check", out)
    assert "5 px at worst (toy-train.tfrecord-00000-of-00001: record 3" in text
    error = run(capfd, "check", out, "--max_error_px=1", code=1)
    assert "to within 1.0 px of the 2D joints, found 5.00 px" in error


def test_check_decodes_to_the_last_pixel(raw, tmp_path, capfd, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cut = encode_image(noise)[:-2000]
    monkeypatch.setattr(Toy, "example", lambda s, p, k: make_record(k) | {"image": cut})
    run(capfd, "build", "toy", f"--raw={raw}", f"--out={tmp_path}/out")
    error = run(capfd, "check", tmp_path / "out", code=1)
    assert "record 0" in error
    assert "field image: expected an image that decodes" in error


@pytest.mark.parametrize("built", [False, True])
def test_show_draws_records(raw, tmp_path, capfd, built):
    picture = tmp_path / "sheet.png"
    argv = ["toy", f"--raw={raw}"]
    if built:
        run(capfd, "build", "toy", f"--raw={raw}", f"--out={tmp_path}/out")
        argv = [tmp_path / "out"]
    run(capfd, "show", *argv, "--split=test", "--n=5", f"--picture={picture}")
    with Image.open(picture) as image:
        assert image.width > 2 * 256
        colours = np.unique(np.array(image).reshape(-1, 3), axis=0)
    for colour in ([255, 220, 0], [255, 0, 255]):  # boxes and projected 3D joints
        assert (colours == colour).all(1).any()


def test_drawn_labels_lie_where_the_image_has_them():
    from hmr_jax.commands import data_show

    record = make_record(0, size=(90, 60))
    image = np.zeros((60, 90, 3), np.uint8)
    image[31, 47] = 255
    image[32, 48] = 255
    box = np.array([20.0, 10.0, 50.0, 40.0])
    window = data_show._window(box)
    tile = data_show._cut(image, window).astype(float).sum(-1)
    rows, columns = np.indices(tile.shape)
    centre = [(columns * tile).sum() / tile.sum(), (rows * tile).sum() / tile.sum()]
    expected = data_show._apply(window, np.array([47.5, 31.5]))
    np.testing.assert_allclose(centre, expected, atol=0.1)
    assert schema.validate(record, schema.RecordSpec())["image_width"] == 90


def test_show_draws_the_mesh_of_a_body():
    from hmr_jax.body.open_assets import load_open_body
    from hmr_jax.commands import data_show

    body = load_open_body()
    grey = {"image": encode_image(np.full((64, 64, 3), 90, np.uint8))}
    placed = {"translation_m": np.array([0, 0, 3.0]), "betas": np.zeros(10)}
    placed["pose_aa"] = np.zeros((24, 3))
    placed["pose_aa"][0] = [np.pi, 0, 0]  # the camera's y points down
    given = make_record(0) | grey | placed | {"bbox_xywh_px": [0, 0, 64, 64]}
    record = schema.validate(given, schema.RecordSpec())
    plain = data_show.draw_record(record, "smpl_24")
    drawn = data_show.draw_record(record, "smpl_24", body)
    changed = (plain != drawn).any(-1)
    # The camera's middle is at (0.47, 0.55) of the image, 64 of 83 pixels of the tile.
    assert changed[140, 120] and not changed[:, :30].any()
    relative = data_show.draw_record(record | {"has_root": 0}, "smpl_24", body)
    assert not (relative == [255, 0, 255]).all(-1).any()
    with pytest.raises(ValueError, match="--body: expected a body of 16 rotations"):
        hand = record | {"pose_aa": np.zeros((16, 3), np.float32)}
        data_show.draw_record(hand, "smpl_24", body)


def test_every_dataset_of_the_catalogue_says_what_it_needs():
    for name, found in layouts.DATASETS.items():
        for layout in found:
            choice = layouts.Choice(name, layout, {})
            source = catalog.load(choice)
            assert source.needs and source.origin and source.licence
            assert source.description and not isinstance(source.needs, str)
            assert issubclass(source, PublishedDataset)
            catalog.options_of(choice)


def test_the_list_says_what_replaced_an_old_name(capfd):
    out = run(capfd, "list")
    assert "pw3d --option=layout=hybrik: 3DPW" in out
    text = out[out.index("pw3d --option=layout=hybrik") :]
    assert text.splitlines()[1] == "  replaces: pw3d_hybrik"
    assert "\npw3d: 3DPW" in out and "\npw3d_hybrik:" not in out


def test_an_old_name_builds_and_is_explained(raw, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(layouts, "ALIASES", {"toy_old": ("toy", layouts.ORIGINAL)})
    argv = [f"--raw={raw}", f"--out={tmp_path}/out", "--option=fold=3"]
    out = run(capfd, "build", "toy_old", *argv)
    assert "toy_old: is now toy" in out and "train: 5 records" in out
    done = records.find_directory(tmp_path / "out").stat().st_mtime_ns
    assert "is now" not in run(capfd, "build", "toy", *argv)
    assert records.find_directory(tmp_path / "out").stat().st_mtime_ns == done
    monkeypatch.setattr(layouts, "ALIASES", {"toy": ("toy", layouts.ORIGINAL)})
    assert "(smpl_24; toy)" in run(capfd, "list", tmp_path / "out")


def test_options_reach_beam(raw, tmp_path, capfd, monkeypatch):
    seen = {}

    def build(factory, out, **options):
        seen.update(options)
        return tmp_path

    monkeypatch.setattr("data_pipelines.builders.conversion.build", build)
    words = ["--project=p", "--region=r"]
    argv = ["build", "toy", f"--raw={raw}", f"--out={tmp_path}/out"]
    argv += ["--beam_runner=Some", *(f"--beam_options={word}" for word in words)]
    run(capfd, *argv)
    assert (seen["beam_runner"], seen["beam_options"]) == ("Some", words)
    error = run(capfd, *argv, "--workers=2", code=2)
    assert "--workers or --beam_runner, found both" in error
