"""Hostile and damaged pickles: a clear error, and nothing happens."""

import builtins
import collections
import copy
import datetime
import functools
import io
import os
import pickle
import pickletools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hmr_jax.body.unpickle import Call, load_pickle
from hmr_jax.errors import UserError


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def load(data: bytes, **options):
    return load_pickle(data, **options)


def needed(value):
    """What a reader does with an entry, or with the first one of a container."""
    while isinstance(value, dict | list | tuple | set) or (
        isinstance(value, np.ndarray) and value.dtype == object
    ):
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return np.asarray(value, np.float64)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(protocol):
    content = {
        "f": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False]),
        "scalar": np.float32(1.5),
        "empty": np.zeros((0, 3)),
        "text": "caf\xe9",
        "bytes": b"\xff\x00",
        "nested": [(1, 2.5, None, True), {"a": [np.int64(3)]}],
        "set": {1, 2},
        "ordered": collections.OrderedDict(a=1),
        "sparse": scipy.sparse.csc_matrix(np.diag([1.0, 0.0, 2.0])),
        "rows": scipy.sparse.csr_matrix(np.arange(6.0).reshape(2, 3)),
        "places": scipy.sparse.coo_matrix(np.arange(6.0).reshape(2, 3)),
    }
    got = load(pickle.dumps(content, protocol))
    for key in ("f", "fortran", "big", "bool", "empty"):
        np.testing.assert_array_equal(got[key], content[key])
        assert got[key].dtype == content[key].dtype.newbyteorder("=")
        assert got[key].flags.c_contiguous
    for key in ("text", "bytes", "nested", "set", "ordered", "scalar"):
        assert got[key] == content[key]
    for key in ("sparse", "rows", "places"):
        np.testing.assert_array_equal(got[key], content[key].toarray())


def attacks(marker: str):
    yield "system", Calls(os.system, f"touch {marker}")
    yield "eval", Calls(builtins.eval, f"open({marker!r}, 'w')")
    yield "open", Calls(builtins.open, marker, "w")
    yield "getattr", Calls(builtins.getattr, "x", "upper")
    yield "partial", functools.partial(os.system, f"touch {marker}")
    yield "fromfile", Calls(np.fromfile, "/etc/passwd", np.uint8)
    yield "load", Calls(np.load, marker, None, True)
    yield "save", Calls(np.save, marker, 1)
    yield "frompyfunc", Calls(np.frompyfunc, os.system, 1, 1)
    yield "import", Calls(builtins.__import__, "os")


def test_calls_are_not_made_and_an_error_where_they_are_needed(tmp_path):
    marker = tmp_path / "executed"
    for name, attack in attacks(str(marker)):
        for protocol in (0, 2, 4):
            path = tmp_path / "attack.pkl"
            content = {"v_template": attack, "f": np.eye(2)}
            path.write_bytes(pickle.dumps(content, protocol))
            found = load_pickle(path)
            np.testing.assert_array_equal(found["f"], np.eye(2))
            with pytest.raises(UserError, match="nothing was executed") as error:
                needed(found["v_template"])
            assert f"{path}: field 'v_template'" in str(error.value)
            assert name in str(error.value) or name == "system", str(error.value)
            path.write_bytes(pickle.dumps(attack, protocol))
            with pytest.raises(UserError, match="nothing was executed"):
                load_pickle(path)
            assert not marker.exists()


USES = [
    lambda x: np.asarray(x),
    lambda x: np.asarray([x, x], np.float32),
    lambda x: np.stack([x]),
    lambda x: x[0],
    lambda x: x.shape,
    lambda x: len(x),
    lambda x: list(x),
    lambda x: float(x),
    lambda x: int(x),
    lambda x: "name" in x,
    lambda x: x or None,
    lambda x: sorted([x, x]),
]


@pytest.mark.parametrize("use", range(len(USES)))
def test_every_use_of_an_unreadable_entry_names_it(use):
    content = {"meta": {"made": [1, datetime.date(2024, 1, 2)]}}
    found = load(pickle.dumps(content), source="a.pkl")["meta"]["made"]
    assert found[0] == 1
    with pytest.raises(UserError, match=r"a\.pkl: field 'meta.made'.*datetime\.date"):
        USES[use](found[1])
    assert "datetime.date" in repr(copy.deepcopy(found[1]))


def test_damaged_entries_leave_the_others():
    good = pickle.dumps(np.arange(3.0), 2)[2:-1]
    bad = array_pickle((3,), "f4", bytes(8))[2:-1]
    found = load(b"\x80\x02}(U\x01a" + good + b"U\x01b" + bad + b"u.", source="x.pkl")
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    with pytest.raises(UserError, match=r"x\.pkl: field 'b': .*expected 12 bytes"):
        needed(found["b"])


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(S'touch executed'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch executed'\no.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"ccopy_reg\n__newobj__\n(cos\nsystem\ntR.",
        b"ccopy_reg\n_reconstructor\n(cos\n_wrap_close\nc__builtin__\nobject\nNtR.",
        b"cnumpy\nloads\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromstring\n.",
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
        b"csys\nmodules\n.",
        b"\x80\x02\x82\x01.",  # an extension code
    ],
)
def test_hand_written_attacks(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="pickle"):
        needed(load(data))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        # state given to a stand-in class, a function, an array's dtype
        b"cchumpy.ch\nCh\n}S'resolve'\nI1\nsb.",
        b"cnumpy.core.multiarray\n_reconstruct\n}S'x'\nI1\nsb.",
        b"cnumpy.core.multiarray\n_reconstruct\nN}S'__code__'\nI1\ns\x86b.",
        # classes and functions as results or arguments
        b"cnumpy\nndarray\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        b"ccopy_reg\n_reconstructor\n(cnumpy.core.multiarray\nscalar\nNNtR.",
        b"cnumpy\ndtype\n(S'M8'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n(S'f8,f8'\ntR.",
        # arrays whose contents do not fit
        b"c__builtin__\nbytearray\n(I99999999999\ntR.",
        b"c__builtin__\nset\n(I5\ntR.",
        # a list that holds itself
        b"(lp0\ng0\na.",
        b"}p0\nS'a'\ng0\ns.",
        # an outside object
        b"S'x'\nQ.",
        b"Px\n.",
    ],
)
def test_misused_stand_ins(data):
    with pytest.raises(UserError, match="pickle"):
        needed(load(data))


def array_pickle(shape, dtype, raw):
    """The pickle of an array with any header."""

    class Fake:
        def __reduce__(self):
            return (
                np.empty(0).__reduce__()[0],
                (np.ndarray, (0,), b"b"),
                (1, shape, np.dtype(dtype), False, raw),
            )

    return pickle.dumps(Fake(), 2)


def test_array_headers_are_checked():
    assert load(array_pickle((2,), "f4", bytes(8))).shape == (2,)
    for shape, dtype, raw in [
        ((10**12,), "f8", b""),
        ((3,), "f4", bytes(8)),
        ((-2,), "f4", bytes(8)),
        (("2",), "f4", bytes(8)),
        ((3,), "O", [1, 2]),
        ((2,), "O", b"ab"),
        ((-2,), "O", [1, 2]),
    ]:
        with pytest.raises(UserError, match="pickle: cannot be read: .*expected"):
            load(array_pickle(shape, dtype, raw))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_objects(protocol):
    items = np.empty((2, 3), object)
    for i in range(6):
        items.flat[i] = [np.full((i, 2), i), "name", None, [1, i]][i % 4]
    for array in (items, np.asfortranarray(items), items[:0]):
        read = load(pickle.dumps(array, protocol))
        assert read.dtype == object and read.shape == array.shape
        for found, expected in zip(read.flat, array.flat, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_arrays_of_objects_run_nothing():
    found = load(array_pickle((2,), "O", [eval, 3]))
    assert found[1] == 3
    with pytest.raises(UserError, match=r"eval.*nothing was executed"):
        needed(found)


def test_sparse_indices_are_checked():
    for change in (
        {"indptr": np.array([0, 1, 2, 9])},
        {"indptr": np.array([0, 2, 1, 2])},
        {"indptr": np.array([0, 2])},
        {"indices": np.array([0, 7])},
        {"indices": np.array([0, -1])},
        {"indices": np.array([0])},
        {"_shape": (3,)},
    ):
        matrix = scipy.sparse.csc_matrix(np.diag([1.0, 0.0, 2.0]))
        state = dict(matrix.__dict__) | change
        with pytest.raises(UserError, match="pickle: cannot be read: sparse matrix"):
            load(sparse_pickle(state))


def sparse_pickle(state):
    body = pickle.dumps(state, 2)[2:-1]
    return b"\x80\x02cscipy.sparse._csc\ncsc_matrix\n)\x81" + body + b"b."


def test_own_table():
    table = {("mine", "pair"): Call(lambda a, b: [a, b])}
    data = b"cmine\npair\n(I1\nI2\ntR."
    assert load(data, allowed=table) == [1, 2]
    with pytest.raises(UserError, match=r"_reconstruct, which.*nothing was"):
        load(pickle.dumps(np.zeros(2), 2), allowed=table)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_a_value_error_or_harmless(data):
    whole = pickle.dumps({"a": np.arange(4.0), "b": [1, "x"]}, 2)
    position = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    damaged = whole[:position] + bytes([byte]) + whole[position + 1 :]
    for candidate in (damaged, whole[:position]):
        try:
            load(candidate)
        except UserError as error:
            assert "pickle" in str(error)


def test_the_writer_of_this_test_uses_the_names_it_means():
    """The hand-written pickles above are well formed up to the forbidden name."""
    text = io.StringIO()
    pickletools.dis(b"cos\nsystem\n(S'x'\ntR.", out=text)
    assert "os system" in text.getvalue()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_changed_line_ends(tmp_path, protocol):
    """Text pickles are read as they were; binary ones are named, with what to do."""
    content = {"v_template": np.arange(300.0).reshape(100, 3), "name": "a\nb"}
    path = tmp_path / "changed.pkl"
    data = pickle.dumps(content, protocol)
    path.write_bytes(data.replace(b"\n", b"\r\n"))
    if protocol == 0:
        found = load_pickle(path)
        np.testing.assert_array_equal(found["v_template"], content["v_template"])
        assert found["name"] == content["name"]
    else:
        with pytest.raises(UserError, match=r"changed\.pkl.*line ends.*binary mode"):
            load_pickle(path)
