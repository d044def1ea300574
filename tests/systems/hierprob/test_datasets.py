"""hierprob on small SSP-3D and 3DPW files: scores against plain numpy in float64."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from hmr_jax import systems
from hmr_jax.__main__ import main
from hmr_jax.body.joint_sets import LSP_FROM_H36M
from hmr_jax.body.landmarks import COCO_FROM_SMPL, FACE_VERTICES
from hmr_jax.body.open_assets import load_open_body
from hmr_jax.export.params import save_params
from hmr_jax.systems.hierprob import dataset_rules as datasets
from hmr_jax.training.trained import variable_shapes
from tests.test_configs import load

pytest.importorskip("tensorflow")

CONFIG = """
from configs import hierprob


def get_config(arg=None):
    config = hierprob.get_config("quicktest").unlock()
    config.body.h36m_regressor = "{folder}/h36m.npy"
    config.eval.data_dir = "{folder}/data"
    config.eval.num_samples = 2
    config.eval.limit = 0
    config.model.signs = "backend"  # compiles quickly
    return config.lock()
"""
SSP_NAMES = ("a.png", "b.png", "c.png")
PW3D_NAMES = [f"walk_00_image_{i:05d}_person_000.png" for i in (0, 4)]


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmr_jax.commands.cli.set_up_logging", lambda: None)
        yield


def noise(path, size, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_ssp_3d(raw):
    """Three people; the second's silhouette is empty, the third has no sure joint."""
    rng = np.random.default_rng(3)
    poses = 0.2 * rng.normal(size=(3, 72))
    poses[:, :3] += [np.pi, 0, 0]
    joints = rng.uniform(30, 120, (3, 17, 3))
    joints[..., 2] = 0.9
    joints[2, :, 2] = 0
    labels = {
        "fnames": np.array(SSP_NAMES),
        "shapes": rng.normal(size=(3, 10)),
        "poses": poses,
        "joints2D": joints,
        "bbox_centres": np.array([[60.0, 80.0], [55.5, 70.25], [64, 64]]),
        "bbox_whs": np.array([100.0, 90.5, 64 / 1.2]),
        "genders": np.array(["m", "f", "m"]),
    }
    raw.mkdir()
    np.savez(raw / "labels.npz", **labels)
    (raw / "silhouettes").mkdir()
    for i, name in enumerate(SSP_NAMES):
        noise(raw / "images" / name, (160, 128), i)
        mask = np.zeros((128, 160), np.uint8)
        if i != 1:
            mask[20:100, 60:110] = 255
        Image.fromarray(mask).save(raw / "silhouettes" / name)
    return labels


def write_pw3d(raw):
    rng = np.random.default_rng(4)
    poses = 0.2 * rng.normal(size=(2, 72))
    poses[:, :3] += [np.pi, 0, 0]
    labels = {
        "imgname": np.array(PW3D_NAMES),
        "center": rng.uniform(100, 900, (2, 2)),
        "wh": rng.uniform(100, 300, 2),
        "pose": poses,
        "shape": rng.normal(size=(2, 10)),
        "gender": np.array(["m", "f"]),
    }
    raw.mkdir()
    np.savez(raw / "3dpw_test.npz", **labels)
    keypoints = rng.uniform(0, 96, (2, 17, 3))
    keypoints[..., 2] = np.linspace(0.3, 0.9, 17)
    np.save(raw / "hrnet_results_centred.npy", keypoints)
    for i, name in enumerate(PW3D_NAMES):
        noise(raw / "cropped_frames" / name, (96, 96), 10 + i)
    return labels


def body_file(body, stretch):
    """The open body, higher by a factor, in SMPL's file layout."""
    scale = np.array([1.0, stretch, 1.0])
    return {
        "v_template": np.asarray(body.template_m) * scale,
        "shapedirs": np.asarray(body.shape_dirs_m) * scale[:, None],
        "posedirs": np.asarray(body.pose_dirs_m),
        "J_regressor": np.asarray(body.joint_regressor),
        "weights": np.asarray(body.skin_weights),
        "f": np.asarray(body.faces).astype(np.uint32),
        "kintree_table": np.stack([np.array(body.parents) % 2**32, np.arange(24)]),
    }


@pytest.fixture(scope="module")
def body():
    return load_open_body()


def stand_in():
    """Random parameters; much quicker than compiling the initialisation."""
    config, _ = load("hierprob", "quicktest")
    shapes = variable_shapes(systems.get(config.system), config)
    rng = np.random.default_rng(5)

    def made(path, shape):
        if path[-1].key in ("scale", "var"):
            return np.ones(shape.shape, np.float32)
        fan_in = max(1, np.prod(shape.shape[:-1]))
        share = path[-1].key == "kernel"
        return (share * rng.normal(size=shape.shape) / fan_in**0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(made, shapes)


@pytest.fixture(scope="module")
def project(tmp_path_factory, body):
    """Records of both datasets, files of bodies, a config and untrained parameters."""
    from data_pipelines.builders import conversion
    from data_pipelines.builders.pw3d_hierprob import Pw3dHierprob
    from data_pipelines.builders.ssp_3d import Ssp3d

    folder = tmp_path_factory.mktemp("project")
    labels = {
        "ssp_3d": write_ssp_3d(folder / "ssp"),
        "pw3d_hierprob": write_pw3d(folder / "pw3d"),
    }
    conversion.build(
        lambda: Ssp3d(str(folder / "ssp")), folder / "data", progress=False
    )
    made = conversion.build(
        lambda: Pw3dHierprob(str(folder / "pw3d")), folder / "data", progress=False
    )
    assert "pw3d_hierprob" in str(made)
    for gender, stretch in (("male", 1.1), ("female", 0.9)):
        np.savez(folder / f"{gender}.npz", **body_file(body, stretch))
    regressor = np.asarray(body.extra_joint_regressors["h36m_17"])
    np.save(folder / "h36m.npy", regressor)
    (folder / "config.py").write_text(CONFIG.format(folder=folder))
    save_params(stand_in(), folder / "net.npz")
    return folder, labels


def evaluate(folder, source, *more):
    out = folder / f"{source}_{len(more)}"
    argv = [f"--config={folder}/config.py", f"--config.eval.source={source}"]
    argv += [f"--params={folder}/net.npz", f"--out={out}", *more]
    assert main(["eval", *argv]) == 0
    return out


@pytest.fixture(scope="module")
def ssp(project):
    folder, _ = project
    bodies = [f"--config.eval.{g}_body={folder}/{g}.npz" for g in ("male", "female")]
    return evaluate(folder, "ssp_3d", "--pictures=0", *bodies)


@pytest.fixture(scope="module")
def pw3d(project):
    argv = ["--pictures=0", "--config.eval.num_samples=0"]
    return evaluate(project[0], "pw3d_hierprob", *argv)


def per_frame(out, name):
    return np.load(out / f"{name}_per_frame.npy")


def posed(file, rotmats, betas):
    """Vertices and joints by the textbook, joint after joint, float64."""
    shaped = file["v_template"].astype(float) + file["shapedirs"] @ betas
    rest = file["J_regressor"].astype(float) @ shaped
    shaped = shaped + file["posedirs"] @ (rotmats[1:] - np.eye(3)).ravel()
    moves = []
    for joint, parent in enumerate(file["kintree_table"][0].astype(np.uint32)):
        move = np.eye(4)
        move[:3, :3] = rotmats[joint]
        move[:3, 3] = rest[joint] - rotmats[joint] @ rest[joint]
        moves.append(move if joint == 0 else moves[parent] @ move)
    moves = np.stack(moves)
    blended = np.einsum("vj,jab->vab", file["weights"], moves)
    vertices = np.einsum("vab,vb->va", blended[:, :3, :3], shaped) + blended[:, :3, 3]
    joints = np.einsum("jab,jb->ja", moves[:, :3, :3], rest) + moves[:, :3, 3]
    return vertices, joints


def truth(file, pose, betas):
    rotmats = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    rotmats[0] = np.diag([1.0, -1, -1]) @ rotmats[0]
    return posed(file, rotmats, betas)[0]


def error(found, expected, align=""):
    """Mean distance after the alignment, millimetres."""
    centre, middle = found.mean(0), expected.mean(0)
    a, b = found - centre, expected - middle
    if align == "SC":
        a = a * np.sqrt((b**2).sum() / (a**2).sum())
    if align == "PA":
        u, s, vt = np.linalg.svd(a.T @ b)
        flip = np.diag([1, 1, np.linalg.det(u @ vt)])
        a = a @ (u @ flip @ vt) * np.trace(flip @ np.diag(s)) / (a**2).sum()
    if not align:
        a, b = found, expected
    return 1000 * np.linalg.norm(a - b, axis=1).mean()


def covered(points, faces):
    """Pixels of a picture of 256 whose centre, at halves, lies in a triangle."""
    mask = np.zeros((256, 256), bool)
    for corners in points[faces]:
        low = np.clip(np.floor(corners.min(0)).astype(int), 0, 256)
        high = np.clip(np.ceil(corners.max(0)).astype(int), 0, 256)
        if (low >= high).any():
            continue
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
        sides = [
            (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
            for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)
        ]
        inside = (np.min(sides, 0) >= 0) | (np.max(sides, 0) <= 0)
        mask[low[1] : high[1], low[0] : high[0]] |= inside
    return mask


def predicted(out, body, frame):
    """The most likely body of the stored arrays, and its picture's places."""
    file = body_file(body, 1.0)
    pose, shape, (scale, tx, ty) = (
        per_frame(out, name)[frame].astype(float) for name in ("pose", "shape", "cam")
    )
    vertices, joints = posed(file, pose, shape)

    def place(points):
        flat = points[:, :2] * [1, -1] + [tx, ty]
        return 128 + scale * 128 * flat

    coco = np.concatenate(
        [vertices[list(FACE_VERTICES[len(vertices)])], joints[list(COCO_FROM_SMPL)]]
    )
    return vertices, place(vertices), place(coco)


def metrics(out):
    return json.loads((out / "eval.json").read_text())["rows"]["trained"]["metrics"]


def test_ssp_3d_in_space(project, ssp, body):
    labels = project[1]["ssp_3d"]
    found = metrics(ssp)
    assert list(per_frame(ssp, "fname")) == list(SSP_NAMES)
    rest = np.tile(np.eye(3), (24, 1, 1))
    for i in range(3):
        file = body_file(body, 1.1 if labels["genders"][i] == "m" else 0.9)
        expected = truth(file, labels["poses"][i], labels["shapes"][i])
        vertices, _, _ = predicted(ssp, body, i)
        aligned = error(vertices, expected, "PA")
        assert 1000 * per_frame(ssp, "PVE-PA")[i] == pytest.approx(aligned, rel=1e-4)
        shape = per_frame(ssp, "shape")[i]
        mean, _ = posed(body_file(body, 1.0), rest, shape)
        shaped, _ = posed(file, rest, labels["shapes"][i])
        scaled = error(mean, shaped, "SC")
        assert 1000 * per_frame(ssp, "PVE-T-SC")[i] == pytest.approx(scaled, rel=1e-4)
    for name in ("PVE-PA", "PVE-T-SC"):
        mean = 1000 * per_frame(ssp, name).mean()
        assert found[name] == pytest.approx(mean, rel=1e-6)


def test_ssp_3d_in_the_picture(project, ssp, body):
    labels = project[1]["ssp_3d"]
    faces = np.asarray(body.faces)
    both = either = 0
    for i in range(3):
        row, column = labels["bbox_centres"][i]
        side = 1.2 * labels["bbox_whs"][i]
        vertices, outline, joints = predicted(ssp, body, i)
        exact = (labels["joints2D"][i, :, :2] - [column, row]) * 256 / side + 128
        distance = np.linalg.norm(joints - exact, axis=1).mean()
        found = per_frame(ssp, "joints2D-L2E")[i]
        assert found == pytest.approx(distance, abs=1e-3)

        grid = (np.arange(256) - 128) * side / 256
        rows, columns = (np.floor(grid + at + 0.5).astype(int) for at in (row, column))
        label = ((rows >= 20) & (rows < 100))[:, None]
        label = label & ((columns >= 60) & (columns < 110))[None] & (i != 1)
        mask = covered(outline, faces)
        shown = datasets.silhouettes(
            jnp.asarray(vertices[None, None], jnp.float32),
            body.faces,
            jnp.asarray(per_frame(ssp, "cam")[i : i + 1]),
        )
        assert mask.sum() > 1000 and (np.asarray(shown)[0, 0] != mask).sum() < 5
        overlap, union = (mask & label).sum(), (mask | label).sum()
        found = per_frame(ssp, "silhouette-IOU")[i]
        assert found == pytest.approx(overlap / union, abs=2e-4)
        both, either = both + overlap, either + union
    assert per_frame(ssp, "silhouette-IOU")[1] == 0
    found = metrics(ssp)
    assert found["silhouette-IOU"] == pytest.approx(both / either, abs=2e-4)
    assert found["silhouette-IOU"] != pytest.approx(
        per_frame(ssp, "silhouette-IOU").mean(), abs=1e-3
    )
    assert 0 < found["silhouettesamples-IOU"] < 1
    assert found["joints2Dsamples-L2E"] != found["joints2D-L2E"]


def test_ssp_3d_files(ssp):
    assert list(metrics(ssp)) == sorted(datasets.RULES["ssp_3d"].metrics)
    shapes = {
        "pose": (3, 24, 3, 3),
        "shape": (3, 10),
        "cam": (3, 3),
        "fname": (3,),
        **{n: (3,) for n in datasets.RULES["ssp_3d"].metrics if "samples" not in n},
    }
    found = {
        path.name.removesuffix("_per_frame.npy"): np.load(path).shape
        for path in ssp.glob("*.npy")
    }
    assert found == shapes


def test_pw3d(project, pw3d, body):
    """Without files of bodies, labels of both genders take the neutral body."""
    labels = project[1]["pw3d_hierprob"]
    assert list(per_frame(pw3d, "fname")) == PW3D_NAMES
    file = body_file(body, 1.0)
    regressor = np.asarray(body.extra_joint_regressors["h36m_17"], float)
    for i in range(2):
        expected = truth(file, labels["pose"][i], labels["shape"][i])
        vertices, _, _ = predicted(pw3d, body, i)
        for name, align in (("PVE", ""), ("PVE-SC", "SC"), ("PVE-PA", "PA")):
            value = error(vertices, expected, align)
            found = 1000 * per_frame(pw3d, name)[i]
            assert found == pytest.approx(value, rel=1e-4), name
        joints, wanted = (
            (regressor @ x)[list(LSP_FROM_H36M)] for x in (vertices, expected)
        )
        value = error(joints, wanted)
        assert 1000 * per_frame(pw3d, "MPJPE")[i] == pytest.approx(value, rel=1e-4)


@pytest.mark.slow
def test_one_sample_is_the_mode(project, pw3d):
    argv = ["--pictures=0", "--config.eval.num_samples=1", "--config.eval.seed=2"]
    found = metrics(evaluate(project[0], "pw3d_hierprob", *argv))
    names = datasets.RULES["pw3d_hierprob"].metrics
    assert list(found) == sorted(names) and len(names) == 14
    for name in names[:7]:
        assert found[f"{name}_samples_min"] == pytest.approx(found[name], rel=1e-6)
    few = metrics(pw3d)
    assert few == pytest.approx({n: found[n] for n in names[:7]}, rel=1e-5)


@pytest.mark.slow
def test_the_batch_does_not_matter(project, ssp):
    folder, _ = project
    bodies = [f"--config.eval.{g}_body={folder}/{g}.npz" for g in ("male", "female")]
    more = ["--pictures=2", "--config.eval.batch_size=2", "--baselines"]
    out = evaluate(folder, "ssp_3d", *more, *bodies)
    assert metrics(out) == pytest.approx(metrics(ssp), rel=1e-3)
    rows = json.loads((out / "eval.json").read_text())["rows"]
    assert list(rows) == ["mean pose", "trained", "untrained network"]
    assert rows["mean pose"]["metrics"]["PVE-PA"] < metrics(ssp)["PVE-PA"]
    sheet = np.asarray(Image.open(out / "predictions.png"))
    assert not (ssp / "predictions.png").exists() and sheet.std() > 10


def test_network_input_shrinks_with_its_joints(rng):
    images = rng.uniform(size=(1, 256, 256, 3)).astype(np.float32)
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 3] = [100, 60, 0.4]
    keypoints[0, 5] = [np.nan, 60, 0.4]
    made = jax.jit(datasets.network_input, static_argnums=2)(images, keypoints, 64)
    proxy = np.asarray(made)
    assert proxy.shape == (1, 64, 64, 18) and np.isfinite(proxy).all()
    y, x = np.mgrid[:64, :64]
    expected = np.exp(-((x - 25) ** 2 + (y - 15) ** 2) / 2)
    np.testing.assert_allclose(proxy[0, ..., 4], expected, atol=1e-6)
    assert not np.delete(proxy[0, ..., 1:], 3, -1).any()
    assert proxy[0, ..., 0].any()


def refused(project, capfd, *more):
    folder, _ = project
    argv = [f"--config={folder}/config.py", f"--params={folder}/net.npz"]
    assert main(["eval", *argv, f"--out={folder}/none", *more]) != 0
    return capfd.readouterr().err


def test_errors_name_the_field(project, capfd, body):
    folder, _ = project
    for more, text in (
        (["--config.eval.source=pw3d"], "config.eval.source: expected synthetic or"),
        (
            ["--config.eval.source=ssp_3d", "--config.eval.data_dir=/nowhere"],
            "no datasets: /nowhere does not exist",
        ),
        (
            ["--config.eval.source=ssp_3d", "--config.eval.male_body=/nowhere.pkl"],
            "config.eval.male_body: no such file: /nowhere.pkl",
        ),
    ):
        assert text in refused(project, capfd, *more)
    file = body_file(body, 1.0)
    file["shapedirs"] = file["shapedirs"][..., :4]
    np.savez(folder / "few.npz", **file)
    more = [
        "--config.eval.source=ssp_3d",
        f"--config.eval.female_body={folder}/few.npz",
    ]
    assert "expected num_betas 10" in refused(project, capfd, *more)
    assert not pathlib.Path(folder / "none").exists()


def test_one_warning_without_gendered_bodies(body, monkeypatch):
    from hmr_jax.systems.hierprob import datasets as hierprob_datasets

    config, _ = load("hierprob", "quicktest")
    seen = []
    monkeypatch.setattr(
        hierprob_datasets.logging, "warning", lambda text, *a: seen.append(text % a)
    )
    bodies = hierprob_datasets.load_bodies(config, body)
    assert all(one is body for one in bodies.values()) and len(seen) == 1
    assert "male_body and config.eval.female_body" in seen[0]
    assert "published" in seen[0]


def test_the_limit_ends_the_pass(project, body):
    from hmr_jax.systems.hierprob import datasets as hierprob_datasets

    config, _ = load("hierprob", "quicktest")
    with config.unlocked():
        config.eval.source, config.eval.batch_size = "ssp_3d", 2
    for limit, valid in ((0, [[1, 1], [1, 0]]), (3, [[1, 1], [1, 0]]), (1, [[1, 0]])):
        with config.unlocked():
            config.eval.limit = limit
        data = str(project[0] / "data")
        validation = hierprob_datasets.DatasetValidation(config, body, data)
        for _ in range(2):
            batches = list(validation.batches())
            assert [batch["valid"].tolist() for batch in batches] == valid
            assert batches[0]["sample_index"].tolist() == [0, 1]
    bare = {"has_smpl": np.zeros((2, 1))}
    validation.batches = lambda: [batch | bare for batch in batches]
    with pytest.raises(ValueError, match="record 0: expected a labelled body"):
        validation.score(lambda *_: None)
