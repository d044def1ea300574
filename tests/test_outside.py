"""Files from outside, mutated: a good result, or the user's error with the file's name.

Each public reader reads a good file, and then that file cut off, with other bytes, with
the content of another file, and with values of other types and shapes.
"""

import io
import json
import pathlib
import pickle
import warnings

import h5py
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import scipy.sparse

from data_pipelines import record_index, records, schema
from data_pipelines.builders import inputs, report
from data_pipelines.builders.joblib_files import read_joblib
from data_pipelines.builders.pandas_frames import read_frame
from data_pipelines.builders.published_dataset import PublishedDataset
from hmr_jax.body.npz import read_npy, read_npz
from hmr_jax.body.readers import load_body, read_arrays
from hmr_jax.body.surface import read_uv_processed
from hmr_jax.body.unpickle import load_pickle
from hmr_jax.commands import cli
from hmr_jax.convert import read_torch_checkpoint
from hmr_jax.errors import UserError
from hmr_jax.export import params, stablehlo
from hmr_jax.outside import FileError, json_digest, reader, reading
from hmr_jax.predict import boxes
from hmr_jax.synthetic import motion, pose_bank
from hmr_jax.synthetic.textures import read_textures
from hmr_jax.training.records import RunRecord, plot_curves, read_json
from hmr_jax.training.writers import read_jsonl
from tests.body.test_surface import smpl_sized, uv_fields
from tests.conftest import tiny_body_arrays
from tests.convert import torch_writer
from tests.data_pipelines.builders.written import joblib_dump

__all__ = ["smpl_sized"]  # a fixture
BODY = tiny_body_arrays()
JOINTS = np.random.default_rng(0).uniform(0, 50, (2, 17, 3))
VARIABLES = {"params": {"a": np.arange(6.0, dtype=np.float32), "b": np.ones((2, 2))}}
TEXTURE = np.zeros((1, 1200, 800, 3), np.uint8)
CONFIG = {"system": "ikol", "train": {"num_steps": 3}, "sources": [1, 2]}


class _Raw(PublishedDataset):
    name = "raw"

    def splits(self):
        return ()

    def keys(self, split):
        return ()


def _save_npz(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _save_run(path):
    path.parent.mkdir(exist_ok=True)
    content = {"config": CONFIG, "config_sha256": json_digest(CONFIG), "seed": 1}
    path.write_text(json.dumps({**content, "data_fingerprint": "x"}))


def _save_records(path):
    """A manifest and its index; the test's path is one of the two."""
    folder, shards = path.parent, {}
    for split, count in (("train", 3), ("test", 2)):
        (folder / f"{split}.tfrecord").write_bytes(bytes(10 * count))
        numbers = np.arange(count)
        shards[split] = [
            record_index.ShardIndex(
                *(f"{split}.tfrecord", 10 * count, 10 * numbers),
                *(numbers.astype("u4"), ("a\n0",), 0 * numbers, numbers),
            )
        ]
    record_index.write_index(str(folder), shards, schema.RecordSpec(), {"name": "x"})


def _open_records(path):
    directory = records.open_directory(path.parent)
    for split in directory.manifest["splits"]:
        assert len(directory.split(split)) in (2, 3)


def _save_h5(path):
    with h5py.File(path, "w") as file:
        file["pose"] = JOINTS


def _raw(method, *arguments):
    return lambda path: getattr(_Raw(str(path.parent)), method)(str(path), *arguments)


def _check_run(path):
    RunRecord(path, CONFIG, 1, "x").check()


def _torch(write, dtype=np.float32):
    content = {"state_dict": {"a.w": np.ones((3, 2), dtype), "b": np.zeros(4, dtype)}}
    tensors = {k: torch_writer.tensors(v) for k, v in content.items()}
    return lambda path: write(path, {**tensors, "epoch": 3, "x": np.eye(2)})


def _pickled(content, protocol=2):
    return lambda path: path.write_bytes(pickle.dumps(content, protocol))


LOOSE = {"a": JOINTS, "names": ["x", "y"], "s": scipy.sparse.csc_matrix(np.eye(3))}
POSES = {"poses": np.zeros((4, 72)), "fnames": np.array(["h36m_1"] * 4)}
ROWS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
READERS = {
    "body.pkl": (_pickled(BODY), load_body),
    "body.npz": (lambda path: _save_npz(path, **BODY), load_body),
    "arrays.pkl": (_pickled(BODY, 0), read_arrays),
    "regressor.npy": (
        lambda path: np.save(path, np.ones((17, 60))),
        lambda path: load_body(path.parent / "body.pkl", extra_regressors={"j": path}),
    ),
    "loose.pkl": (_pickled(LOOSE, 4), load_pickle),
    "loose.npz": (
        lambda path: _save_npz(
            path, **{k: np.array(v, object) for k, v in LOOSE.items()}
        ),
        read_npz,
    ),
    "loose.npy": (lambda path: np.save(path, np.array([{}, 1], object)), read_npy),
    "poses.npz": (lambda path: _save_npz(path, **POSES), pose_bank.read_pose_npz),
    "which.npz": (lambda path: _save_npz(path, **POSES), pose_bank.is_pose_npz),
    "amass.npz": (
        lambda path: _save_npz(path, poses=np.zeros((4, 156)), mocap_framerate=60.0),
        motion.load_motion,
    ),
    "textures.npz": (
        lambda path: np.savez_compressed(path, grey=TEXTURE, nongrey=TEXTURE),
        read_textures,
    ),
    "boxes.json": (
        lambda path: path.write_text(json.dumps(ROWS)),
        lambda path: boxes.read_boxes(str(path)),
    ),
    "boxes.npz": (
        lambda path: _save_npz(path, names=np.array(["a", "b"]), boxes=np.ones((2, 5))),
        lambda path: boxes.read_boxes(str(path)),
    ),
    "joints.json": (
        lambda path: path.write_text(json.dumps({"a.png": JOINTS.tolist()})),
        lambda path: boxes.read_joints2d(str(path)),
    ),
    "joints.npz": (
        lambda path: _save_npz(path, names=np.array(["a", "b"]), joints2d=JOINTS),
        lambda path: boxes.read_joints2d(str(path)),
    ),
    "params.npz": (
        lambda path: params.save_params(VARIABLES, path),
        params.load_params,
    ),
    "params.safetensors": (
        lambda path: params.save_params(VARIABLES, path),
        params.load_params,
    ),
    "half.npz": (
        lambda path: params.save_params(VARIABLES, path, dtype="bfloat16"),
        params.read_metadata,
    ),
    "zip.pth": (_torch(torch_writer.write_zip), read_torch_checkpoint),
    "legacy.pth": (_torch(torch_writer.write_legacy), read_torch_checkpoint),
    "plain.safetensors": (
        lambda path: safetensors.numpy.save_file({"a": np.ones(3)}, path),
        read_torch_checkpoint,
    ),
    "flags/run.json": (
        _save_run,
        lambda path: cli._recorded_config([f"--workdir={path.parent}"]),
    ),
    "check/run.json": (_save_run, _check_run),
    "any.json": (lambda path: path.write_text('{"a": [1, {"b": null}]}'), read_json),
    "log.jsonl": (
        lambda path: path.write_text('{"step": 1, "loss/total": 2.0}\n' * 3),
        read_jsonl,
    ),
    "one/records.json": (_save_records, _open_records),
    "two/records.npz": (_save_records, _open_records),
    "report/report.json": (
        lambda path: report.write(str(path.parent), {"bad": [], "splits": {}}),
        lambda path: report.read(str(path.parent)),
    ),
    "notes/inputs.json.gz": (
        lambda path: inputs.write(str(path.parent), inputs.merged([])),
        lambda path: inputs.read(str(path.parent)),
    ),
    "raw.json": (lambda path: path.write_text(json.dumps(ROWS)), _raw("read_json")),
    "raw.pkl": (_pickled(LOOSE), _raw("read_pickle")),
    "raw.npz": (lambda path: _save_npz(path, **POSES), _raw("read_npz")),
    "raw.npy": (lambda path: np.save(path, JOINTS), _raw("read_npy")),
    "raw.mat": (
        lambda path: scipy.io.savemat(path, {"pose": JOINTS, "s": {"a": [1, "x"]}}),
        _raw("read_mat", "pose"),
    ),
    "raw.h5": (_save_h5, _raw("read_h5", lambda file: file["pose"][:])),
    "db.pt": (
        lambda path: path.write_bytes(joblib_dump({"a": JOINTS, "n": np.arange(3)})),
        lambda path: read_joblib(path.read_bytes(), source=str(path)),
    ),
    "frame.pkl": (
        _pickled({"a": JOINTS}),
        lambda path: read_frame(path.read_bytes(), source=str(path)),
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Every good file, and the content of each."""
    folder = tmp_path_factory.mktemp("outside")
    for name, (write, _) in READERS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name)
    return folder, {name: (folder / name).read_bytes() for name in READERS}


def mutations(name, data, others):
    """Damaged and exchanged contents of a file."""
    rng = np.random.default_rng(len(data))
    for end in (0, 1, 5, *rng.integers(0, len(data), 5)):
        yield f"cut at {end}", data[:end]
    yield "more at the end", data + bytes(range(7))
    for number in range(24):
        changed = bytearray(data)
        # Damage lies anywhere, and half of it where formats have their headers.
        length = len(data) if number % 2 else min(len(data), 200)
        for place in rng.integers(0, length, 1 + number % 3):
            changed[place] = rng.integers(256)
        yield f"bytes {number}", bytes(changed)
    for other, content in others.items():
        if other != name and pathlib.Path(other).suffix == pathlib.Path(name).suffix:
            yield f"the content of {other}", content
    for text in (
        "",
        "null",
        "3",
        "[]",
        "{}",
        '"x"',
        "[[1, 2]]",
        '{"a": 1}',
        "[" * 5000,
    ):
        yield f"the text {text[:9]}", text.encode()
    if name.endswith(".npz"):
        yield from _other_arrays(data, rng)
    if name.endswith((".json", ".jsonl")):
        yield from _other_values(data)


STRANGE = (
    *(np.zeros(0), np.zeros((0, 3)), np.array(3.5), np.array("text"), np.ones((2, 2))),
    *(np.full(4, np.nan), np.array([{}, None], object), np.array([1j])),
    *(np.array(["2020-01-01"], "M8[D]"), np.array(-1), np.full((2, 3), -5)),
)


def _other_arrays(data, rng):
    arrays = read_npz(data)
    for name in arrays:
        rest = {n: np.asarray(a) for n, a in arrays.items() if n != name}
        chosen = rng.choice(len(STRANGE), 4, replace=False)
        for number, strange in enumerate([None, *(STRANGE[i] for i in chosen)]):
            buffer = io.BytesIO()
            np.savez(buffer, **rest, **({} if strange is None else {name: strange}))
            yield f"{name}: strange {number}", buffer.getvalue()


def _other_values(data):
    """Each value of a JSON file in turn by others."""
    content = json.loads(data.splitlines()[0] if data.count(b"}\n{") else data)

    def places(value, path=()):
        yield path
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(min(len(value), 2))
            for key in keys:
                yield from places(value[key], (*path, key))

    for path in list(places(content))[1:40]:
        for strange in (None, -1, 1e999, "x", [], {}, [[1]], True):
            changed = json.loads(json.dumps(content))
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = strange
            yield f"{path} = {strange!r}", json.dumps(changed).encode()


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_end_in_a_result_or_an_error_with_their_name(good, name):
    folder, contents = good
    path, read = folder / name, READERS[name][1]
    read(path)
    failed, wrong = 0, []
    try:
        for what, data in mutations(name, contents[name], contents):
            path.write_bytes(data)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path)
            except (UserError, OSError) as error:
                failed += 1
                if path.name not in str(error) and str(path.parent) not in str(error):
                    wrong.append(f"{what}: no name in {error!r:.300}")
            except Exception as error:  # noqa: BLE001 -- the fault that is looked for
                wrong.append(f"{what}: {error!r:.300}")
    finally:
        path.write_bytes(contents[name])
    assert not wrong, f"{len(wrong)} faults:\n" + "\n".join(wrong[:12])
    assert failed >= 5 or name == "log.jsonl"  # whose rows end where damage begins


def test_a_bundle_with_mutated_files(tmp_path, tiny_body):
    def predict(variables, batch, body):
        return {"t": batch["root_cam_m"] + variables["params"]["a"][None, :3]}

    shapes = {"root_cam_m": (3,)}
    stablehlo.export_program(predict, VARIABLES, tiny_body, shapes, tmp_path / "b")
    stablehlo.load_exported(tmp_path / "b")
    for name in (stablehlo.MANIFEST, stablehlo.WEIGHTS, stablehlo.PROGRAM):
        path = tmp_path / "b" / name
        whole = path.read_bytes()
        for what, data in mutations(name, whole, {"other.json": b"[]"}):
            path.write_bytes(data)
            try:
                stablehlo.load_exported(tmp_path / "b")(root_cam_m=np.zeros((2, 3)))
            except (UserError, OSError) as error:
                assert str(tmp_path / "b") in str(error), what
        path.write_bytes(whole)


def test_a_mutated_surface(tmp_path, smpl_sized):
    path = tmp_path / "UV_Processed.mat"
    scipy.io.savemat(path, uv_fields(), do_compression=True)
    whole = path.read_bytes()
    read_uv_processed(path, smpl_sized)
    for what, data in mutations(path.name, whole, {}):
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_uv_processed(path, smpl_sized)
        except (UserError, OSError) as error:
            assert str(path) in str(error), what


def test_curves_of_a_log_with_strange_rows(tmp_path):
    rows = ['{"step": 1, "loss/a": 1.0}', '{"loss/a": 2}', '{"step": 2, "loss/a": "x"}']
    (tmp_path / "log.jsonl").write_text("\n".join([*rows, "[1]", rows[0]]))
    assert len(read_jsonl(tmp_path / "log.jsonl")) == 3
    plot_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")


def test_the_guard():
    for found in (KeyError("a"), AssertionError(), MemoryError(), RuntimeError("x")):
        with pytest.raises(FileError, match=r"^a\.npz: expected an archive, found: "):
            with reading("a.npz", "an archive"):
                raise found
    with pytest.raises(schema.RecordError, match=r"^a\.npz: field b: wrong$"):
        with reading("a.npz", "an archive", schema.RecordError):
            raise UserError("a.npz: field b: wrong")
    for passing in (ImportError("no h5py"), FileNotFoundError(2, "none", "a.npz")):
        with pytest.raises(type(passing)), reading("a.npz", "an archive"):
            raise passing
    with pytest.raises(FileError, match="a.npz") as error:
        with reading("a.npz", "an archive"):
            raise ValueError("x" * 10**6)
    assert len(str(error.value)) < 2000

    @reader("a number")
    def number(path, base):
        return int(path.read_text(), base)

    with pytest.raises(FileError, match=r"test_outside\.py: expected a number"):
        number(pathlib.Path(__file__), 10)
