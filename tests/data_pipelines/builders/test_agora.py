"""AGORA's tables, pickled as old and new pandas pickle them."""

import functools
import pickle
import sys
import types

import numpy as np
import pytest

from data_pipelines.builders import pandas_frames
from data_pipelines.builders.agora import Agora
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders.published import (
    build,
    close,
    picture,
    pixels,
    put,
    read,
)

SIZE = (128, 72)
FOCAL, CENTRE = (5333.0, 5333.0), (1920.0, 1080.0)


def objects(values):
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def table(rng):
    """Two pictures of two people, and one of nobody; the last person is invalid."""
    joints = 0.3 * rng.standard_normal((4, 45, 3))
    joints += [[[-0.8, 0, 8]], [[1, 0.1, 9]], [[0, 0, 12]], [[0.5, 0, 7]]]
    flat = pixels(joints, FOCAL, CENTRE)
    names = [f"ag_trainset_archviz_cam00_0000{i}.png" for i in range(3)]
    return {
        "imgPath": objects(names),
        "X": objects([[1.0, 2.0], [3.0, 4.0], []]),
        "camX": np.array([0.0, 1.0, 2.0]),
        "gender": objects([["male", "female"], ["female", "male"], []]),
        "kid": objects([[False, True], [False, False], []]),
        "occlusion": objects([[10.0, 20.5], [0.0, 99.0], []]),
        "isValid": objects([[True, True], [True, False], []]),
        "gt_joints_2d": objects([list(flat[:2]), list(flat[2:]), []]),
        "gt_joints_3d": objects([list(joints[:2]), list(joints[2:]), []]),
    }


class Fake:
    """Instances of classes with other modules' names, for the pickler."""

    def __init__(self, reduce=None, state=None):
        self.reduce, self.state = reduce, state

    def __reduce_ex__(self, protocol):
        if self.reduce is not None:
            return self.reduce
        return (__import__("copyreg").__newobj__, (type(self),), self.state)


@pytest.fixture
def fakes(monkeypatch):
    """Classes and functions that pickle as pandas' own."""

    def make(module, name, kind):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
        if kind is Fake:
            made = type(name, (Fake,), {"__module__": module})
        else:
            made = types.FunctionType(kind.__code__, {}, name)
            made.__module__, made.__qualname__ = module, name
        monkeypatch.setattr(sys.modules[module], name, made, raising=False)
        return made

    return make


def blocks(columns):
    """Numbers in one block and objects in another, with their places."""
    names = list(columns)
    found = []
    for wanted in (float, object):
        places = [i for i, n in enumerate(names) if columns[n].dtype == wanted]
        values = np.empty((len(places), 3), wanted)
        for row, place in enumerate(places):
            values[row] = columns[names[place]]
        found.append((values, np.array(places)))
    return found


def old_pickle(columns, make):
    """Pandas 0.25 to 1.2: the manager's state holds axes and blocks."""
    new_index = make("pandas.core.indexes.base", "_new_Index", lambda c, d: None)
    index = make("pandas.core.indexes.base", "Index", Fake)
    range_index = make("pandas.core.indexes.range", "RangeIndex", Fake)
    manager = make("pandas.core.internals.managers", "BlockManager", Fake)
    frame = make("pandas.core.frame", "DataFrame", Fake)
    names = Fake((new_index, (index, {"data": objects(list(columns)), "name": None})))
    span = {"name": None, "start": 0, "stop": 3, "step": 1}
    rows = Fake((new_index, (range_index, span)))
    parts = [{"values": v, "mgr_locs": p} for v, p in blocks(columns)]
    content = {"0.14.1": {"axes": [names, rows], "blocks": parts}}
    values = [part["values"] for part in parts]
    held = manager(state=([names, rows], values, [names, names], content))
    state = {"_data": held, "_typ": "dataframe", "_metadata": [], "attrs": {}}
    return pickle.dumps(frame(state=state), 4)


def new_pickle(columns, make):
    """Pandas 1.3 on: blocks rebuilt by a function, with a slice where they can be."""
    new_index = make("pandas.core.indexes.base", "_new_Index", lambda c, d: None)
    index = make("pandas", "Index", Fake)
    manager = make("pandas.core.internals.managers", "BlockManager", Fake)
    block = make("pandas._libs.internals", "_unpickle_block", lambda *a: None)
    frame = make("pandas", "DataFrame", Fake)
    names = Fake((new_index, (index, {"data": objects(list(columns)), "name": None})))
    rows = Fake((new_index, (index, {"data": np.arange(3), "name": None})))
    (numbers, place), other = blocks(columns)
    parts = (
        Fake((block, (numbers, slice(int(place[0]), int(place[0]) + 1, 1), 2))),
        Fake((block, (*other, 2))),
    )
    held = Fake((manager, (parts, [names, rows])))
    state = {"_mgr": held, "_typ": "dataframe", "_metadata": [], "attrs": {}}
    return pickle.dumps(frame(state=state), 2)


@pytest.mark.parametrize("write", [old_pickle, new_pickle])
def test_tables_of_pandas(write, fakes):
    columns = table(np.random.default_rng(0))
    found = pandas_frames.read_frame(write(columns, fakes))
    assert set(found) == set(columns)
    close(found["camX"], columns["camX"])
    assert list(found["imgPath"]) == list(columns["imgPath"])
    close(found["gt_joints_3d"][1][0], columns["gt_joints_3d"][1][0])


def test_tables_of_real_pandas():
    pandas = pytest.importorskip("pandas")
    columns = table(np.random.default_rng(0))
    columns["imgPath"] = objects(list(columns["imgPath"]))
    frame = pandas.DataFrame(
        {k: pandas.Series(v, dtype=v.dtype) for k, v in columns.items()}
    )
    frame.columns = frame.columns.astype(object)
    found = pandas_frames.read_frame(pickle.dumps(frame))
    close(found["camX"], columns["camX"])
    close(found["gt_joints_2d"][0][1], columns["gt_joints_2d"][0][1])


def test_nothing_else_is_read():
    with pytest.raises(ValueError, match="was not imported"):
        pandas_frames.read_frame(pickle.dumps(functools.partial))
    with pytest.raises(ValueError, match="expected a table"):
        pandas_frames.read_frame(pickle.dumps([1, 2]))


@pytest.fixture
def dataset(tmp_path, fakes):
    columns = table(np.random.default_rng(0))
    data = old_pickle(columns, fakes)
    put(tmp_path / "camera_dataframe/train_0_withj2d.pkl", data)
    for i in range(2):
        name = f"ag_trainset_archviz_cam00_0000{i}_1280x720.png"
        put(tmp_path / "images/train" / name, picture(i, SIZE, "PNG"))
    return tmp_path, columns


def test_labels(dataset):
    folder, columns = dataset
    source = Agora(str(folder))
    assert source.splits() == ("train",)
    found = read(source, "train")
    stem = "ag_trainset_archviz_cam00_0000"
    assert list(found) == [f"{stem}0_00", f"{stem}0_01", f"{stem}1_00"]
    assert source.dropped == {
        ("train", "invalid by the table"): 1,
        ("train", "picture without people"): 1,
    }
    scale = SIZE[0] / 3840
    for name, record in found.items():
        row, person = int(name[-4]), int(name[-1])
        joints = columns["gt_joints_3d"][row][person][:24]
        flat = columns["gt_joints_2d"][row][person][:24] * scale
        close(record["joints_cam_m"], np.c_[joints, np.ones(24)])
        close(record["keypoints_px"], np.c_[flat, np.ones(24)], 1e-3)
        close(record["intrinsics"][[0, 1], [0, 1]], np.multiply(FOCAL, scale), 1e-2)
        close(record["intrinsics"][[0, 1], 2], np.multiply(CENTRE, scale), 1e-2)
        assert record["gender"] == columns["gender"][row][person]
        assert record["is_kid"] == columns["kid"][row][person]
        close(record["occlusion_percent"], columns["occlusion"][row][person])
        inside = np.all((flat >= 0) & (flat < SIZE), axis=1)
        low, high = flat[inside].min(0), flat[inside].max(0)
        sides = 1.2 * (high - low)
        close(record["bbox_xywh_px"], [*((low + high - sides) / 2), *sides], 1e-3)
        assert record["has_smpl"] == 0 and record["frame_id"] == row
    assert len(Agora(str(folder), valid_only=False).keys("train")) == 4


def test_the_records_on_disk(dataset, tmp_path):
    factory = functools.partial(Agora, str(dataset[0]))
    assert build(factory, tmp_path / "out").spec == Agora.spec


def test_errors_name_what_is_wrong(dataset):
    folder, _ = dataset
    with pytest.raises(RecordError, match=r"row 0: gt_joints_2d.*\[127, 2\]"):
        Agora(str(folder), fit="smplx").keys("train")
    put(folder / "camera_dataframe/validation_0_withj2d.pkl", b"\x80\x04nonsense")
    with pytest.raises(RecordError, match=r"agora: .*validation_0.*a pickle"):
        Agora(str(folder)).keys("validation")
