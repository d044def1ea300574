"""Files of joblib: real ones, ones written here in its layout, and bad ones."""

import base64
import bz2
import datetime
import gzip
import lzma
import pathlib
import pickle
import zlib

import numpy as np
import pytest

from data_pipelines.builders.joblib_files import read_joblib
from hmr_jax.errors import UserError
from tests.data_pipelines.builders.written import joblib_dump, joblib_wrapped

# joblib 1.6.0's dump of a big-endian array, an object array and one in Fortran order:
# as it is, and with compress=3.
REAL = (
    "gASV3wAAAAAAAAB9lCiMBmpvaW50c5SME2pvYmxpYi5udW1weV9waWNrbGWUjBFOdW1weUFycmF5V3Jh"
    "cHBlcpSTlCmBlH2UKIwIc3ViY2xhc3OUjAVudW1weZSMB25kYXJyYXmUk5SMBXNoYXBllEsCSwOGlIwF"
    "b3JkZXKUjAFDlIwFZHR5cGWUaAiMBWR0eXBllJOUjAJmNJSJiIeUUpQoSwOMAT6UTk5OSv////9K////"
    "/0sAdJRijAphbGxvd19tbWFwlIiMG251bXB5X2FycmF5X2FsaWdubWVudF9ieXRlc5RLEHViBf//////"
    "AAAAAD+AAABAAAAAQEAAAECAAABAoAAAlU8AAAAAAAAAjAVuYW1lc5RoBCmBlH2UKGgHaApoC0sChZRo"
    "DWgOaA9oEYwCTziUiYiHlFKUKEsDjAF8lE5OTkr/////Sv////9LP3SUYmgXiWgYSxB1YoAFlZMAAAAA"
    "AAAAjBZudW1weS5fY29yZS5tdWx0aWFycmF5lIwMX3JlY29uc3RydWN0lJOUjAVudW1weZSMB25kYXJy"
    "YXmUk5RLAIWUQwFilIeUUpQoSwFLAoWUaAOMBWR0eXBllJOUjAJPOJSJiIeUUpQoSwOMAXyUTk5OSv//"
    "//9K/////0s/dJRiiV2UKIwBYZSMAmJilGV0lGIulVUAAAAAAAAAjAdmb3J0cmFulGgEKYGUfZQoaAdo"
    "CmgLSwJLAoaUaA2MAUaUaA9oEYwCaTKUiYiHlFKUKEsDjAE8lE5OTkr/////Sv////9LAHSUYmgXiGgY"
    "SxB1YgP///8AAAIAAQADAHUu",
    "eF6FkU9LwzAYxtPWOvH/EFTwC+ilB/HgQXQy8GChA0E8SUm6znT2H2mKFBTmYXOD3Pbu7jfzo+jb1sFQ"
    "wRySN+R9kt/zZLA0+yD1eIFDtdxPglhmoHb6CQsDZsV5lBZuGniPoQ+q6ZTbSyFocSdomvoCpnD0CqV0"
    "JcuZF9IMxWalAtWIu7TsxSZlZpymPti6bYxwl4guipXWxrorCzzhK/MKu/XeCUzGb3ADh7ahtHNwHOf6"
    "E0c12UQCU6s0DJMnN4poCmN1UJNW77k0DB7iyI+lywrpZ2Bv58wslZ+l0YsBIS1cWzi1yvqdkFnnOwWE"
    "pxFK+FLtizf4Kl+z9SHwDb7Jt3hT6Z3TRbjnH3AXCMf3Jny/fHVgzqbzm3crRMv1EuFbUR7KoE5HrbvC"
    "95I4kyL3ZBXW7wBtMoS2xqDORKuAjMXE/oea3OM3aRTTZQx8pLRmt3O2Ri8RUtD4l29bH6FzpV1B7T04"
    "XvR+9sfH8L1x7d2o8taJRgySW1/1ye7w",
)


ARRAYS = {
    "joints2D": np.random.default_rng(0).normal(size=(3, 49, 3)),
    "vid_name": np.array(["a_0", "a_0", "b_1"]),
    "empty": np.zeros((0, 5), np.float32),
}


@pytest.mark.parametrize("text", REAL)
def test_files_of_joblib_itself(text):
    content = read_joblib(base64.b64decode(text))
    assert sorted(content) == ["fortran", "joints", "names"]
    np.testing.assert_array_equal(content["joints"], np.arange(6).reshape(2, 3))
    assert content["joints"].dtype == np.float32
    assert content["joints"].dtype.isnative
    np.testing.assert_array_equal(content["fortran"], [[0, 1], [2, 3]])
    assert content["names"].dtype == object
    assert content["names"].tolist() == ["a", "bb"]


@pytest.mark.parametrize("alignment", [None, 16])
@pytest.mark.parametrize(
    "compress",
    [bytes, zlib.compress, gzip.compress, bz2.compress, lzma.compress]
    + [lambda data: lzma.compress(data, lzma.FORMAT_ALONE)]
    + [lambda data: b"ZF" + f"{len(data):#019x}".encode() + zlib.compress(data)],
)
def test_every_compression(compress, alignment):
    content = read_joblib(compress(joblib_dump(ARRAYS, alignment)))
    assert content.keys() == ARRAYS.keys()
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(content[name], expected)
        assert content[name].dtype == expected.dtype


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("xz", 1)])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_against_joblib_where_it_is_installed(tmp_path, compress, protocol):
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "x_db.pt"
    joblib.dump(ARRAYS, path, compress=compress, protocol=protocol)
    content = read_joblib(path.read_bytes())
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(content[name], expected)


def test_truncated_files():
    whole = joblib_dump(ARRAYS)
    for data in (whole, gzip.compress(whole), zlib.compress(whole)):
        for end in (0, 1, len(data) // 3, len(data) - 4):
            with pytest.raises(ValueError, match="expected a joblib file"):
                read_joblib(data[:end])


def test_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Touch:
        def __reduce__(self):
            return open, ("made", "w")

    for data in (
        pickle.dumps({"a": Touch()}, 2),
        zlib.compress(pickle.dumps([Touch()], 4)),
        # state given to the wrapper's class, to a list, and a pickle behind an array
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n}S'resolve'\nI1\nsb.",
        b"](}S'x'\nI1\nsb.",
        joblib_wrapped(np.array([None], object))[0] + pickle.dumps(Touch(), 2) + b".",
    ):
        with pytest.raises(UserError, match="joblib file"):
            found = read_joblib(data)
            np.asarray(found["a"] if isinstance(found, dict) else found, np.float64)
    assert not list(tmp_path.iterdir())


def test_entries_of_other_classes_leave_the_others():
    content = {"made": datetime.date(2024, 1, 2), "x": [1.5], "p": pathlib.Path("a")}
    found = read_joblib(zlib.compress(pickle.dumps(content, 4)), source="db.pt")
    assert found["x"] == [1.5]
    with pytest.raises(UserError, match=r"db\.pt: field 'made'.*datetime\.date"):
        np.asarray(found["made"])


def test_wrappers_that_make_no_sense():
    good = joblib_wrapped(np.arange(2.0))[0]
    assert read_joblib(good + np.arange(2.0).tobytes() + b".").tolist() == [0, 1]
    for data in (
        good + bytes(8) + b".",
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b.",
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81.",
        b"cjoblib.numpy_pickle\nNDArrayWrapper\n)\x81.",
    ):
        with pytest.raises(UserError, match="joblib file"):
            read_joblib(data)
    assert read_joblib(joblib_dump({})) == {}
