"""Small pickles that describe gigabytes or hours: refused within a budget."""

import bz2
import io
import lzma
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import scipy.sparse

from data_pipelines.builders.joblib_files import read_joblib
from data_pipelines.builders.pandas_frames import read_frame
from hmr_jax.body.npz import read_npz
from hmr_jax.body.unpickle import load_pickle
from hmr_jax.errors import UserError
from hmr_jax.outside import reading

MAX_BYTES = 100e6
MAX_SECONDS = 10.0


def short(text):
    return b"U" + bytes([len(text)]) + text.encode()


def doubled(levels, inner=b"K\x01"):
    """A tuple of the same tuple twice, and so on: 2**levels leaves."""
    return inner + b"".join(b"q%ch%c\x86" % (i, i) for i in range(levels))


def doubled_lists(levels):
    """A list of the same list twice, and so on."""
    return b"]" + b"".join(b"q%c0](h%ch%ce" % (i, i, i) for i in range(levels))


def sparse(shape, kind="csc"):
    """A pickled matrix of one value with any shape."""
    matrix = scipy.sparse.csc_matrix(np.eye(1))
    state = {**matrix.__dict__, "_shape": shape, "indptr": np.array([0, 1])}
    if kind == "coo":
        place = np.array([0])
        state = {"_shape": shape, "data": np.ones(1), "coords": (place, place)}
    if kind == "csr":
        state["_shape"] = shape[::-1]
    body = pickle.dumps(state, 2)[2:-1]
    name = f"cscipy.sparse._{kind}\n{kind}_matrix\n".encode()
    return name + b")\x81" + body + b"b"


def many(item, count):
    """One object, kept in the memo, and what is made of it many times."""
    return b"(" + item * count + b"l"


def encoded(size):
    """Bytes made of one text, again and again."""
    text = b"X" + struct.pack("<i", size) + b"a" * size + b"q\x01"
    call = b"c_codecs\nencode\nq\x00h\x01h\x00h\x01\x85R"
    return b"(" + text + call + b"h\x00h\x01\x85R" * 4000 + b"l"


def shared_raw():
    """Arrays that are many times made of the same bytes."""
    raw = b"B" + struct.pack("<i", 8 * 10**5) + bytes(8 * 10**5) + b"q\x05"
    dtype = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87Rq\x06"
    head = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    )
    state = b"(K\x01J" + struct.pack("<i", 10**5) + b"\x85h\x06\x89h\x05tb"
    return b"(" + raw + dtype + (head + state) * 500 + b"l"


def big_key():
    number = b"\x8b" + struct.pack("<i", 50000) + b"\x01" * 50000 + b"q\x00"
    return b"}(" + number + b"K\x01" + b"h\x00K\x01" * 50000 + b"u"


FRAME = b"\x80\x04"
ATTACKS = {
    "nested tuples": b"}" + short("a") + doubled(28) + b"s",
    "nested tuples of 60 levels": b"}" + short("a") + doubled(60) + b"s",
    "nested tuples of nothing": b"}" + short("a") + doubled(28, b")") + b"s",
    "nested lists": b"}" + short("a") + doubled_lists(28) + b"s",
    "a key of nested tuples": b"}" + doubled(60) + b"K\x01s",
    "a set of nested tuples": b"c__builtin__\nset\n](" + doubled(60) + b"e\x85R",
    "an ordered dict of them": b"ccollections\nOrderedDict\n]("
    + doubled(60)
    + b"K\x01\x86e\x85R",
    "a frozenset of them": FRAME + b"(" + doubled(60) + b"\x91",
    "nested tuples as a shape": b"cnumpy.core.multiarray\n_reconstruct\nN\x85R(K\x01"
    + doubled(60)
    + b"cnumpy\ndtype\nU\x02f8\x85R\x89U\x00tb",
    "nested tuples as a dtype": b"cnumpy\ndtype\n" + doubled(60) + b"\x85R",
    "nested tuples as an outside object": doubled(60) + b"Q",
    "a number with many digits as a key": big_key(),
    "a sparse matrix": sparse((10**9, 1)),
    "sparse rows": sparse((10**9, 1), "csr"),
    "sparse places": sparse((20000, 15000), "coo"),
    "many sparse matrices": many(sparse((10**6, 1)), 50),
    "bytes of one text": encoded(10**5),
    "arrays of the same bytes": shared_raw(),
    "a memo index": b"N" + b"r" + struct.pack("<I", 2**31) + b"0N",
    "a memo index in text": b"Np" + str(2**31).encode() + b"\n0N",
    "a frame": FRAME + b"\x95" + struct.pack("<Q", 2**40) + b"N",
    "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**33),
    "bytes": FRAME + b"\x8e" + struct.pack("<Q", 2**33),
    "a long number": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "names of classes": b"".join(b"cm\nn%d\n0" % i for i in range(3000)) + b"N",
}


def costs(action):
    """Peak bytes and seconds of something that may end in a user's error."""
    tracemalloc.start()
    start = time.process_time()
    try:
        action()
    except UserError as error:
        assert len(str(error)) < 2000
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, seconds


def used(content):
    """Make an array of whatever there is, as readers do."""
    for value in content.values() if isinstance(content, dict) else [content]:
        with reading("file", "an array of numbers"):
            np.asarray(value, np.float64)


@pytest.mark.parametrize("name", ATTACKS)
def test_small_pickles_cost_little(name):
    data = ATTACKS[name] + b"."
    peak, seconds = costs(lambda: used(load_pickle(data)))
    assert peak < MAX_BYTES, f"{len(data)} bytes cost {peak / 1e6:.0f} MB"
    assert seconds < MAX_SECONDS


def test_the_budget_leaves_published_files_alone():
    """Sparse regressors, and arrays that entries share, are what files have."""
    regressor = scipy.sparse.random(24, 6890, 0.01, "csc", random_state=0)
    shared = np.arange(100000.0)
    content = {"J_regressor": regressor, "a": shared, "b": shared, "t": [(1, 2)] * 9999}
    found = load_pickle(pickle.dumps(content, 2))
    np.testing.assert_array_equal(found["J_regressor"], regressor.toarray())
    np.testing.assert_array_equal(found["b"], shared)
    assert len(found["t"]) == 9999


def test_a_table_of_endless_rows_and_columns_costs_little():
    for stop in (10**9, 10**20):
        index = b"cpandas.core.indexes.base\n_new_Index\ncpandas\nRangeIndex\n"
        number = str(stop).encode()
        bounds = b"}(" + short("start") + b"K\x00" + short("stop") + b"L" + number
        index += bounds + b"L\n" + short("step") + b"K\x01u\x86R"
        table = b"cpandas.core.internals\nBlockManager\n]](" + index * 2 + b"e\x86R"
        manager = b"cpandas\nDataFrame\n)\x81}" + short("_mgr") + table + b"sb."
        peak, seconds = costs(lambda data=manager: read_frame(data))
        assert peak < MAX_BYTES and seconds < MAX_SECONDS
        with pytest.raises(UserError, match=r"a\.pkl"):
            read_frame(manager, source="a.pkl")


def test_compressed_pickles_cost_little():
    for compress in (zlib.compress, bz2.compress, lzma.compress):
        for instruction in (b"}", b"N"):
            data = compress(instruction * 3 * 10**7)
            peak, seconds = costs(lambda data=data: read_joblib(data))
            assert peak < 2.5 * MAX_BYTES and seconds < 3 * MAX_SECONDS


def test_a_compressed_array_of_objects_costs_little():
    buffer = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + b"}" * 3 * 10**7)
    peak, seconds = costs(lambda: used(read_npz(buffer.getvalue())))
    assert peak < MAX_BYTES and seconds < MAX_SECONDS
