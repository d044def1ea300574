"""From pictures on disk to results on disk, with a stand-in for the network."""

import dataclasses
import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from PIL import Image

from hmr_jax import files
from hmr_jax.geometry.crops import box_of_image
from hmr_jax.nn.pose2d import person_crops
from hmr_jax.predict import engine, outputs, persons
from hmr_jax.predict.persons import Choice
from hmr_jax.predict.run import Run
from hmr_jax.systems.hierprob.people import people_by

SIZE, SAMPLES = 64, 9
STEP = 5.0


def network(variables, proxy):
    """Distributions that depend on what is to be seen, through one number."""
    features = proxy.mean((1, 2))
    count = features.shape[0]
    eye = jnp.broadcast_to(jnp.eye(3), (count, 23, 3, 3))
    scale = jnp.broadcast_to(variables["scale"], (count, 23, 3))
    zeros = jnp.zeros((count, 10))
    return {
        "features": features,
        "pose_fisher_matrix": eye * scale[..., None],
        "pose_u": eye,
        "pose_s": scale,
        "pose_v": eye,
        "pose_mode": eye,
        "shape_mean": zeros + features.sum(-1, keepdims=True),
        "shape_log_std": zeros,
        "shape_std": zeros + 1,
        "global_rotmat": eye[:, 0],
        "camera": jnp.broadcast_to(jnp.array([[0.5, 0.0, 0.0]]), (count, 3)),
    }


def people(apply, num_samples):
    options = {"num_samples": num_samples, "sample_shape": False}
    return people_by(apply, SIZE, {**options, "visibility_threshold": 0.75})


@pytest.fixture(scope="module")
def body(face_body):
    return face_body


@pytest.fixture(scope="module")
def predictor(body):
    variables = {"scale": jnp.float32(20.0)}
    return engine.Predictor(people(network, SAMPLES), variables, body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pictures, one of them black, and one that is cut off."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.new("RGB", (40, 70)).save(folder / "b.jpg")
    data = (folder / "a.png").read_bytes()
    (folder / "c.png").write_bytes(data[: len(data) // 2])
    (folder / "notes.txt").write_text("no picture")
    return folder


def joints_table():
    rng = np.random.default_rng(2)
    points = rng.uniform([5, 10], [45, 55], (2, 17, 2))
    seen = np.concatenate([points, np.full((2, 17, 1), 0.9)], -1)
    seen[0, 9] = np.nan
    hidden = np.concatenate([points[0], np.zeros((17, 1))], -1)
    return {"a.png": list(seen), "b": [hidden], "c.png": [hidden]}


def make(out, predictor, body, **changes):
    values = {"batch_size": 2, "pictures": False, "keep_samples": True, "tile_px": 32}
    return Run(out, predictor, body, {"model": "stand-in"}, **values | changes)


@pytest.fixture(scope="module")
def done(folder, predictor, body, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    paths = persons.list_pictures([str(folder)])
    choice = Choice(joints=joints_table())
    report = make(out, predictor, body, pictures=True, meshes=outputs.MESH_FORMATS)(
        paths, choice
    )
    return out, paths, choice, report


def test_every_person_has_files_and_the_rest_is_told(done):
    out, paths, _, report = done
    assert [path.name for path in paths] == ["a.png", "b.jpg", "c.png"]
    names = {path.name for path in out.iterdir()}
    for stem in ("a_0", "a_1", "b_0"):
        assert {f"{stem}.npz", f"{stem}.obj", f"{stem}.png"} <= names
        assert {f"{stem}.ply", f"{stem}.glb"} <= names
        assert f"{stem}_samples.png" in names
    assert names >= {"a_overlay.png", "b_overlay.png"}
    assert names >= {"predictions.json", "overview.png", "pictures.json", ".lock"}
    assert len(names) == 24
    summary = json.loads((out / "predictions.json").read_text())
    assert [row["result"] for row in summary["people"]] == [
        "a_0.npz",
        "a_1.npz",
        "b_0.npz",
    ]
    assert [row["num_joints_visible"] for row in summary["people"]] == [16, 17, 0]
    assert "whole picture" in summary["people"][2]["note"]
    (failure,) = report.failed
    assert failure["file"] == "c.png" and "no whole picture" in failure["reason"]
    sheet = np.array(Image.open(out / "a_0.png"))
    assert sheet.shape[2] == 3 and sheet.std() > 10


@pytest.mark.parametrize("kind", outputs.MESH_FORMATS)
def test_meshes_hold_the_vertices_of_the_result(done, body, kind):
    out, *_ = done
    mesh = trimesh.load_mesh(out / f"a_1.{kind}", process=False, maintain_order=True)
    found = outputs.read_result(out / "a_1.npz")["vertices_m"]
    np.testing.assert_allclose(mesh.vertices, found, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, body.faces)


def test_results_are_those_of_the_pictures(done):
    out, _, choice, _ = done
    found = outputs.read_result(out / "a_1.npz")
    joints = choice.joints["a.png"][1]
    np.testing.assert_allclose(found["joints2d_px"], joints[:, :2], atol=1e-3)
    np.testing.assert_allclose(found["joints2d_confidence"], 0.9, rtol=1e-6)
    low, high = joints[:, :2].min(0), joints[:, :2].max(0)
    size = 1.2 * (high - low)
    box = np.concatenate([0.5 * (low + high) - 0.5 * size, size])
    np.testing.assert_allclose(found["box_xywh_px"], box, rtol=1e-5)
    # weak perspective by hand: square of 4 / 3 of the crop's width, 1.2 about the box
    side = 1.2 * max(box[3], box[2] * 4 / 3)
    camera, joints_m = found["camera"], found["joints_coco_m"]
    flat = camera[0] * (joints_m[:, :2] * [1, -1] + camera[1:])
    expected = box[:2] + 0.5 * box[2:] + 0.5 * side * flat
    np.testing.assert_allclose(found["joints2d_body_px"], expected, atol=1e-2)
    assert found["vertex_uncertainty_m"].shape == (60,)
    assert found["sample_rotmats"].shape == (SAMPLES, 23, 3, 3)
    for name, array in found.items():
        if array.dtype.kind == "f" and not name.startswith("joints2d"):
            assert np.isfinite(array).all(), name


def test_a_black_picture_without_joints_is_finite(done):
    found = outputs.read_result(done[0] / "b_0.npz")
    np.testing.assert_array_equal(found["box_xywh_px"], [0, 0, 40, 70])
    assert not found["joints2d_visible"].any()
    assert np.isfinite(found["vertices_m"]).all()
    np.testing.assert_array_equal(found["betas_mean"], 0)  # nothing was seen


def test_a_run_goes_on_where_it_stopped(done, predictor, body):
    out, paths, choice, _ = done
    before = {path.name: path.read_bytes() for path in out.glob("*.npz")}
    (out / "a_1.npz").unlink()
    (out / "b_0.npz").write_bytes(before["b_0.npz"][:100])
    report = make(out, predictor, body)(paths, choice)
    assert report.kept == 1 and len(report.people) == 3
    for name in before:
        with np.load(out / name) as file:
            again = {key: file[key] for key in file.files}
        (out / "was.npz").write_bytes(before[name])
        with np.load(out / "was.npz") as file:
            for key in file.files:
                np.testing.assert_array_equal(again[key], file[key], key)
        (out / "was.npz").unlink()


def test_the_overview_shows_everyone_after_a_resumed_run(done, predictor, body):
    out, paths, choice, _ = done
    whole = persons.read_picture(out / "overview.png")
    (out / "a_1.npz").unlink()
    report = make(out, predictor, body, pictures=True, meshes=outputs.MESH_FORMATS)(
        paths, choice
    )
    assert report.kept == 2
    np.testing.assert_array_equal(persons.read_picture(out / "overview.png"), whole)
    report = make(out, predictor, body, pictures=True)(paths, choice)
    assert report.kept == 3
    np.testing.assert_array_equal(persons.read_picture(out / "overview.png"), whole)


def test_pictures_of_equal_names_keep_their_own_results(
    folder, predictor, body, tmp_path
):
    """As a.jpg, a.png, a_jpg.png and the a.png of another folder are."""
    pixels = persons.read_picture(folder / "a.png")
    paths = [
        tmp_path / name for name in ("x/a.bmp", "x/a.png", "x/a_bmp.png", "y/a.png")
    ]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(pixels, 5 * number, axis=1)).save(path)
    joints = {str(path): joints_table()["a.png"] for path in paths}
    choice = Choice(joints=joints)
    out = tmp_path / "out"
    assert make(out, predictor, body)(paths[:1], choice).kept == 0
    before = (out / "a_0.npz").read_bytes()
    report = make(out, predictor, body)(paths, choice)
    assert report.kept == 2 and len(report.people) == 8 and not report.failed
    assert len({row["result"] for row in report.people}) == 8
    assert {row["picture"] for row in report.people} == {str(path) for path in paths}
    assert (out / "a_0.npz").read_bytes() == before
    assert make(out, predictor, body)(paths[::-1], choice).kept == 8
    for path in paths:  # each alone, and even replaced, touches none of the others
        before = {file: file.read_bytes() for file in out.glob("*.npz")}
        report = make(out, predictor, body, overwrite=True)([path], choice)
        own = {row["result"] for row in report.people}
        for file, content in before.items():
            if file.name not in own:
                assert file.read_bytes() == content


def test_what_predict_did_not_write_stays(folder, predictor, body, tmp_path):
    path = tmp_path / "x" / "a.png"
    path.parent.mkdir()
    path.write_bytes((folder / "a.png").read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    mine = ("a_0.png", "a_overlay.png", "a_1.npz", "joints.json")
    for name in mine:
        (out / name).write_text(name)
    choice = Choice(joints=joints_table())
    for _ in range(2):
        make(out, predictor, body, pictures=True, overwrite=True)([path], choice)
        assert all((out / name).read_text() == name for name in mine)
    assert (out / "a_png_0.npz").exists()
    with pytest.raises(ValueError, match="--out: expected another folder"):
        make(path.parent, predictor, body)([path], choice)
    assert list(path.parent.iterdir()) == [path]


def test_two_runs_at_once_do_not_share_a_folder(folder, predictor, body, tmp_path):
    run = make(tmp_path / "out", predictor, body)
    with (
        files.locked(tmp_path / "out", "predicting here"),
        pytest.raises(ValueError, match="another process is predicting here"),
    ):
        run([folder / "a.png"], Choice(joints=joints_table()))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_names_that_cannot_be_fail_alone(folder, predictor, body, tmp_path):
    data = (folder / "a.png").read_bytes()
    long = tmp_path / f"{'y' * 250}.png"
    odd = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    good = tmp_path / "a.png"
    for path in (long, odd, good):
        path.write_bytes(data)
    out = tmp_path / "out"
    report = make(out, predictor, body, pictures=True)(
        [long, odd, good],
        Choice(
            joints=dict.fromkeys(
                [str(long), str(odd), "a.png"], joints_table()["a.png"]
            )
        ),
    )
    assert len(report.people) == 2 and len(report.failed) == 2
    summary = json.loads((out / "predictions.json").read_bytes().decode("ascii"))
    assert [row["file"] for row in summary["failed"]] == [long.name, r"caf\xe9.png"]
    assert "UTF-8" in summary["failed"][1]["reason"]


def test_a_missing_overlay_is_drawn_from_results(done, predictor, body):
    out, paths, choice, _ = done
    path = out / "a_overlay.png"
    before = path.read_bytes()
    path.unlink()
    make(out, predictor, body, pictures=True, uncropped=False)(paths, choice)
    assert not path.exists()
    report = make(out, predictor, body, pictures=True)(paths, choice)
    assert report.kept == 3 and path.read_bytes() == before
    picture = persons.read_picture(paths[0])
    shown = persons.read_picture(path)
    assert shown.shape == picture.shape and (shown != picture).any()


def test_results_of_other_inputs_are_not_kept_silently(done, predictor, body):
    out, paths, choice, _ = done
    moved = {name: [j + STEP for j in rows] for name, rows in choice.joints.items()}
    other = dataclasses.replace(choice, joints=moved)
    with pytest.raises(ValueError, match=r"a_0\.npz: was made with .*--overwrite"):
        make(out, predictor, body)(paths[:1], other)
    report = make(out, predictor, body, overwrite=True)(paths[:1], other)
    assert report.kept == 0 and len(report.people) == 2
    make(out, predictor, body, overwrite=True)(paths, choice)  # as it was


def test_a_picture_of_the_same_name_is_another_picture(
    folder, predictor, body, tmp_path
):
    path = tmp_path / "a.png"
    path.write_bytes((folder / "a.png").read_bytes())
    choice = Choice(joints=joints_table())
    run = make(tmp_path / "out", predictor, body)
    assert run([path], choice).kept == 0
    assert run([path], choice).kept == 2
    with Image.open(path) as picture:
        turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned.save(path)
    with pytest.raises(ValueError, match=r"a_0\.npz: was made with .*another picture"):
        run([path], choice)


def test_damaged_results_are_no_results(done, tmp_path):
    whole = (done[0] / "a_0.npz").read_bytes()
    path = tmp_path / "a_0.npz"
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(-2000, 0, 3):  # the archive's directory
            data[place] = rng.integers(256)
        path.write_bytes(data)
        found = outputs.read_result(path)
        assert found is None or found["crop_box_px"].shape == (4,)
    arrays = outputs.read_result(done[0] / "a_0.npz")
    del arrays["camera"]
    np.savez(path, **arrays)
    assert outputs.read_result(path) is None


def test_checksums_tell_contents_apart():
    tree = {"a": np.zeros((2, 3), np.float32), "b": jnp.ones(2, jnp.bfloat16)}
    crc = outputs.checksum(tree)
    assert crc == outputs.checksum({name: tree[name] for name in ("b", "a")})
    for other in (
        {**tree, "a": tree["a"] + np.float32(1e-6)},
        {**tree, "a": tree["a"].reshape(3, 2)},
        {**tree, "b": tree["b"].astype(jnp.float16)},
        {"a": tree["a"], "c": tree["b"]},
    ):
        assert outputs.checksum(other) != crc


def test_numbers_that_differ_fail_one_picture_alone(folder, predictor, body, tmp_path):
    """The odd picture is in the middle, while persons of the first wait."""
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "d.png")]
    for path, source in zip(paths, ("a.png", "b.jpg", "a.png"), strict=True):
        path.write_bytes((folder / source).read_bytes())
    joints = joints_table()
    joints = {"a.png": joints["a.png"][:1], "b": joints["a.png"], "d": joints["b"]}
    boxes = {name: [np.array([5.0, 5, 30, 40, 0.99])] for name in ("a", "b", "d")}
    choice = Choice(joints=joints, boxes=boxes)
    report = make(tmp_path / "out", predictor, body)(paths, choice)
    (failure,) = report.failed
    assert failure["file"] == "b.jpg" and "found 1 and 2" in failure["reason"]
    summary = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["file"] for row in summary["people"]] == ["a.png", "d.png"]
    assert summary["failed"] == report.failed and not report.skipped


def test_a_network_that_is_not_finite_is_a_failure(folder, body, tmp_path):
    variables = {"scale": jnp.float32(20.0)}

    def broken(variables, proxy):
        out = network(variables, proxy)
        return {**out, "camera": out["camera"] * jnp.nan}

    run = make(tmp_path, engine.Predictor(people(broken, 0), variables, body), body)
    report = run([folder / "a.png"], Choice(joints=joints_table()))
    assert len(report.failed) == 2 and not report.people
    assert "camera is not finite" in report.failed[0]["reason"]
    assert not list(tmp_path.glob("*.npz"))


def test_crops_do_not_depend_on_the_padding(predictor, folder):
    picture = persons.read_picture(folder / "a.png")
    whole = np.array([0.0, 0.0, 50.0, 60.0])
    person = persons.Person(folder / "a.png", "a", 0, whole, 1.0, None)
    cut = predictor.cut(picture, person)
    images = jnp.asarray(picture[None], jnp.float32) / 255
    expected, shown = person_crops(images, box_of_image(60, 50, (1,)))
    # The square around the crop of 384 x 288 that joints are looked for in.
    assert cut.crop.shape == (384, 384, 3)
    np.testing.assert_allclose(cut.crop[:, 48:-48], expected[0], atol=1e-4)
    np.testing.assert_allclose(cut.shown[:2], shown.centre_px[0])
    size = shown.size_px[0] * jnp.array([4 / 3, 1.0])
    np.testing.assert_allclose(cut.shown[2:], size, rtol=1e-6)


@pytest.mark.parametrize("side_bands", [False, True])
def test_bands_beside_the_crop_show_the_picture_or_black(side_bands, body, folder):
    predictor = engine.Predictor(people(network, 0), {}, body, side_bands=side_bands)
    picture = np.full((100, 400, 3), 255, np.uint8)
    box = np.array([180.0, 30.0, 20.0, 40.0])
    person = persons.Person(folder / "a.png", "a", 0, box, 1.0, None)
    crop = predictor.cut(picture, person).crop
    assert crop[:, 48:-48].min() > 0.99
    band = np.concatenate([crop[:, :48], crop[:, -48:]], 1)
    assert (band.max() == 0.0) if side_bands else (band.min() > 0.99)


def test_joints_found_by_a_network_return_to_the_picture(body, tmp_path):
    """The stand-in's heatmaps are the crop's red channel at every fourth pixel."""

    def bright_dot(variables, crops):
        red = crops[:, 1::4, 1::4, :1] * variables
        return {"heatmaps": jnp.repeat(red, 17, -1)}

    y, x = np.mgrid[:120, :160]
    dot = np.exp(-((x - 60) ** 2 + (y - 70) ** 2) / 200)
    pixels = np.uint8(np.round(255 * dot))[..., None].repeat(3, -1)
    Image.fromarray(pixels).save(tmp_path / "dot.png")
    variables = {"scale": jnp.float32(20.0)}
    predictor = engine.Predictor(
        people(network, 0), variables, body, pose2d=(bright_dot, jnp.float32(1.0))
    )
    boxes = {"dot.png": [np.array([30.0, 30, 60, 80, 0.99])]}
    report = make(tmp_path / "out", predictor, body)(
        [tmp_path / "dot.png"], Choice(boxes=boxes)
    )
    assert report.people[0]["num_joints_visible"] == 17
    found = outputs.read_result(tmp_path / "out" / "dot_0.npz")
    np.testing.assert_allclose(found["joints2d_px"], [[60, 70]] * 17, atol=1.5)
    assert "vertex_uncertainty_m" not in found
