import argparse
import collections
import datetime
import decimal
import functools
import pathlib
import pickle
import tarfile
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from hmr_jax.convert import read_torch_checkpoint
from hmr_jax.errors import UserError
from tests.convert import torch_writer as writer
from tests.convert.torch_writer import Storage, Tensor, tensors

WRITERS = pytest.mark.parametrize(
    "write", [writer.write_zip, writer.write_legacy], ids=["zip", "legacy"]
)


@pytest.fixture
def arrays(rng):
    return {
        "conv.weight": rng.standard_normal((2, 3, 1, 1)).astype(np.float32),
        "half": rng.standard_normal(5).astype(np.float16),
        "brain": rng.standard_normal(5).astype(ml_dtypes.bfloat16),
        "double": rng.standard_normal((2, 2)),
        "tracked": np.array(7, np.int64),
        "mask": np.array([True, False, True]),
        "complex": np.array([1 + 2j, 3 - 1j], np.complex64),
        "empty": np.zeros((0, 4), np.float32),
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@WRITERS
def test_every_type_comes_back(tmp_path, arrays, write):
    write(tmp_path / "a.pth", tensors(arrays))
    assert_same(read_torch_checkpoint(tmp_path / "a.pth"), arrays)


def test_big_endian_zip(tmp_path, arrays):
    writer.write_zip(tmp_path / "a.pth", tensors(arrays), big_endian=True)
    # words are swapped by component: the writer's views make complex one word
    arrays.pop("complex")
    found = read_torch_checkpoint(tmp_path / "a.pth")
    found.pop("complex")
    assert_same(found, arrays)


@WRITERS
def test_strides_offsets_and_shared_storages(tmp_path, write):
    storage = Storage(np.arange(12, dtype=np.float32))
    content = {
        "transposed": Tensor(storage, 0, (4, 3), (1, 4)),
        "row": Tensor(storage, 4, (4,), (1,)),
        "expanded": Tensor(storage, 2, (2, 3), (0, 1)),
        "scalar": Tensor(storage, 11, (), ()),
    }
    write(tmp_path / "a.pth", content)
    found = read_torch_checkpoint(tmp_path / "a.pth")
    values = storage.values
    np.testing.assert_array_equal(found["transposed"], values.reshape(3, 4).T)
    np.testing.assert_array_equal(found["row"], values[4:8])
    np.testing.assert_array_equal(found["expanded"], [values[2:5], values[2:5]])
    assert found["scalar"] == 11
    found["row"][:] = 0  # arrays do not alias
    assert found["scalar"] == 11


@WRITERS
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
def test_wrapped_state_dicts_are_found(tmp_path, arrays, write, wrapper):
    content = {
        "epoch": 3,
        wrapper: tensors({f"module.{k}": v for k, v in arrays.items()}, True),
        "optimizer": {
            "state": {0: {"step": 10, "exp_avg": Tensor.of(np.zeros(3, np.float32))}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}],
        },
        "lr_scheduler": {"milestones": collections.Counter([50, 120])},
        "best": np.float64(51.5),
    }
    write(tmp_path / "a.pth", content)
    assert_same(read_torch_checkpoint(tmp_path / "a.pth"), arrays)
    assert_same(read_torch_checkpoint(tmp_path / "a.pth", key=wrapper), arrays)


def test_the_key_option_goes_through_levels(tmp_path, arrays):
    content = {"a": {"gen": tensors(arrays), "dis": tensors(arrays)}}
    writer.write_zip(tmp_path / "a.pth", content)
    assert_same(read_torch_checkpoint(tmp_path / "a.pth", key="a.gen"), arrays)
    with pytest.raises(ValueError, match=r"found a dict with \['a'\].*key="):
        read_torch_checkpoint(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"no entry 'a\.b'; found a dict with"):
        read_torch_checkpoint(tmp_path / "a.pth", key="a.b")


def test_two_candidates_ask_for_a_key(tmp_path, arrays):
    content = {"model": tensors(arrays), "net": tensors(arrays)}
    writer.write_zip(tmp_path / "a.pth", content)
    with pytest.raises(ValueError, match="key="):
        read_torch_checkpoint(tmp_path / "a.pth")


def test_safetensors(tmp_path, arrays):
    arrays.pop("complex")
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    found = read_torch_checkpoint(tmp_path / "a.safetensors")
    assert_same({k: found[k] for k in arrays}, arrays)
    path = tmp_path / "b.safetensors"
    path.write_bytes((tmp_path / "a.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"checkpoint .*b\.safetensors: expected"):
        read_torch_checkpoint(path)


@WRITERS
@pytest.mark.parametrize("keep", [3, 60, 200, 0.5, 0.9, 0.999])
def test_truncated_files_are_a_clear_error(tmp_path, rng, write, keep):
    content = tensors({"w": rng.standard_normal((40, 40))})
    write(tmp_path / "a.pth", content)
    data = (tmp_path / "a.pth").read_bytes()
    count = keep if isinstance(keep, int) else int(keep * len(data))
    (tmp_path / "a.pth").write_bytes(data[:count])
    with pytest.raises(ValueError, match=r"checkpoint .*a\.pth"):
        read_torch_checkpoint(tmp_path / "a.pth")


class _Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@WRITERS
def test_code_in_a_file_is_not_run_and_named_where_a_tensor_is_needed(
    tmp_path, arrays, write
):
    attack = _Attack(tmp_path / "owned")
    write(tmp_path / "a.pth", {"state_dict": tensors(arrays), "x": attack})
    assert_same(read_torch_checkpoint(tmp_path / "a.pth"), arrays)
    write(tmp_path / "a.pth", {"state_dict": {**tensors(arrays), "x": attack}})
    with pytest.raises(UserError, match=r"a\.pth: entries .*: x \(.*io\.open"):
        read_torch_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "owned").exists()


class _Module:
    def __init__(self, content):
        self.content = content


@WRITERS
def test_a_pickled_module_gets_the_advice_to_save_its_state_dict(
    tmp_path, arrays, write
):
    module = _Module(tensors(arrays))
    for content in (module, {"model": module, "epoch": 1}):
        write(tmp_path / "a.pth", content)
        with pytest.raises(
            UserError, match=r"a\.pth: .*_Module, which.*state_dict\(\)"
        ):
            read_torch_checkpoint(tmp_path / "a.pth")


BESIDE = [
    argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("runs/a")),
    pathlib.PurePosixPath("runs/a"),
    datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    collections.defaultdict(dict, a={"b": 1}),
    {collections.Counter: {"best": 1.0}},  # a class as a key, as callbacks are
    np.random.default_rng(0),
    complex(1, 2),
    decimal.Decimal("1.5"),
    [slice(1, 2), range(10**12)],
    _Module({"inside": [1, 2]}),
    functools.partial(max, 1),
]


@WRITERS
@pytest.mark.parametrize("beside", BESIDE, ids=lambda b: type(b).__name__)
def test_what_lies_beside_a_state_dict_may_be_of_any_class(
    tmp_path, arrays, write, beside
):
    write(tmp_path / "a.pth", {"hyper": beside, "state_dict": tensors(arrays)})
    assert_same(read_torch_checkpoint(tmp_path / "a.pth"), arrays)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.module.a.b", "module.module.c"], ["a.b", "c"]),
        (["_orig_mod.a.b", "_orig_mod.c"], ["a.b", "c"]),
        (["model.a.b", "model.c"], ["a.b", "c"]),
        (["module._orig_mod.model.a.b", "module._orig_mod.model.c"], ["a.b", "c"]),
        (["model.module.a.b", "module.model.c"], ["a.b", "c"]),
        (["_orig_mod.module.a.b", "module.c"], ["a.b", "c"]),
        (["backbone._orig_mod.b", "c"], ["backbone.b", "c"]),
        (["model.a.b", "head.c"], ["model.a.b", "head.c"]),
        (["module.a", "model.a"], ["module.a", "model.a"]),
    ],
)
def test_prefixes_of_wrappers(tmp_path, names, expected):
    arrays = {name: np.full(2, i, np.float32) for i, name in enumerate(names)}
    writer.write_zip(tmp_path / "a.pth", tensors(arrays))
    found = read_torch_checkpoint(tmp_path / "a.pth")
    assert {k: v[0] for k, v in found.items()} == dict(
        zip(expected, range(len(names)), strict=True)
    )


@WRITERS
def test_tensors_larger_than_their_file_are_refused(tmp_path, write):
    storage = Storage(np.zeros(4, np.float32))
    for shape, strides in [((2**15, 2**14), (0, 0)), ((2**40,), (0,))]:
        write(tmp_path / "a.pth", {"w": Tensor(storage, 0, shape, strides)})
        with pytest.raises(UserError, match=r"a\.pth: w: .*a file of this size"):
            read_torch_checkpoint(tmp_path / "a.pth")
    # Many of them count together.
    view = Tensor(storage, 0, (2**20, 2), (0, 1))
    write(tmp_path / "a.pth", {f"w{i}": view for i in range(40)})
    with pytest.raises(UserError, match=r"a\.pth: w\d+: .*a file of this size"):
        read_torch_checkpoint(tmp_path / "a.pth")
    write(tmp_path / "a.pth", {"w": view})
    assert read_torch_checkpoint(tmp_path / "a.pth")["w"].shape == (2**20, 2)


def test_views_outside_their_storage_are_refused(tmp_path):
    storage = Storage(np.zeros(4, np.float32))
    for shape, strides, offset in [((5,), (1,), 0), ((2,), (-1,), 3), ((2,), (4,), 1)]:
        tensor = Tensor(storage, offset, shape, strides)
        writer.write_zip(tmp_path / "a.pth", {"w": tensor})
        with pytest.raises(ValueError, match=r"shape \("):
            read_torch_checkpoint(tmp_path / "a.pth")


def test_a_missing_storage_is_named(tmp_path, arrays):
    writer.write_zip(tmp_path / "a.pth", tensors(arrays), skip=("1",))
    with pytest.raises(ValueError, match="archive/data/1 is missing"):
        read_torch_checkpoint(tmp_path / "a.pth")


def test_other_files_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_torch_checkpoint(tmp_path / "none.pth")
    text, pickled = tmp_path / "a.txt", tmp_path / "a.pkl"
    text.write_text("hello, this is no checkpoint")
    with pytest.raises(ValueError, match="starts with b'hell'"):
        read_torch_checkpoint(text)
    pickled.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="not one of torch.save"):
        read_torch_checkpoint(pickled)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(text, "storages")
    with pytest.raises(ValueError, match="tar format"):
        read_torch_checkpoint(tmp_path / "a.tar")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "no data.pkl")
    with pytest.raises(ValueError, match=r"one data\.pkl"):
        read_torch_checkpoint(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02N.")
        archive.writestr("m/constants.pkl", b"\x80\x02N.")
    with pytest.raises(ValueError, match="TorchScript"):
        read_torch_checkpoint(tmp_path / "b.zip")


def test_a_file_without_tensors(tmp_path):
    writer.write_zip(tmp_path / "a.pth", {"epoch": 3})
    with pytest.raises(ValueError, match=r"found a dict with \['epoch'\]"):
        read_torch_checkpoint(tmp_path / "a.pth")
    writer.write_zip(tmp_path / "a.pth", [1, 2])
    with pytest.raises(ValueError, match="found a list"):
        read_torch_checkpoint(tmp_path / "a.pth")
