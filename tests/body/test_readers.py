"""Model files in the published formats, written by the tests themselves."""

import contextlib
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from hmr_jax.body.joint_sets import MANO_PARENTS, SMPL_PARENTS
from hmr_jax.body.readers import load_body, read_arrays, save_body

PUBLISHED = (
    "v_template",
    *("shapedirs", "posedirs", "weights", "J_regressor", "f", "kintree_table"),
)


@contextlib.contextmanager
def fake_modules(*names):
    """Modules that exist while a pickle is written and are gone when it is read."""
    before = {name: sys.modules.get(name) for name in names}
    modules = {name: types.ModuleType(name) for name in names}
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def chumpy_classes(modules):
    """Classes that pickle as chumpy's do: attributes in a dictionary."""
    ch = type("Ch", (), {"__module__": "chumpy.ch"})
    select = type("Select", (), {"__module__": "chumpy.reordering"})
    modules["chumpy.ch"].Ch, modules["chumpy.reordering"].Select = ch, select
    return ch, select


def as_published(arrays, ch, select):
    """Shape directions as a selection of a longer array, others as plain chumpy."""

    def wrapped(x):
        o = ch()
        o.x, o._dirty_vars, o._itr = x, {"x"}, None
        return o

    shape_dirs = arrays["shapedirs"]
    longer = np.concatenate([shape_dirs, np.ones_like(shape_dirs)], 2)
    columns = np.arange(longer.size).reshape(longer.shape)[:, :, :10]
    selection = select()
    selection.a, selection.idxs = wrapped(longer), columns.ravel()
    selection.preferred_shape = shape_dirs.shape
    return dict(
        arrays,
        shapedirs=selection,
        v_template=wrapped(arrays["v_template"]),
        posedirs=wrapped(arrays["posedirs"]),
        J_regressor=scipy.sparse.csc_matrix(arrays["J_regressor"]),
        weights=np.asfortranarray(arrays["weights"]),
        bs_style="lbs",
    )


def write(path, content, protocol=2):
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def old_names(path):
    """Rewrite module paths as Python 2, numpy 1 and early scipy spelt them."""
    data = path.read_bytes()
    for new, old in (
        (b"numpy._core.multiarray", b"numpy.core.multiarray"),
        (b"scipy.sparse._csc", b"scipy.sparse.csc"),
        (b"copyreg", b"copy_reg"),
    ):
        data = data.replace(new, old)
    path.write_bytes(data)
    return path


def assert_same_body(body, arrays):
    got = {
        "v_template": body.template_m,
        "shapedirs": body.shape_dirs_m,
        "posedirs": body.pose_dirs_m,
        "J_regressor": body.joint_regressor,
        "weights": body.skin_weights,
        "f": body.faces,
    }
    for field, value in got.items():
        np.testing.assert_allclose(value, arrays[field], atol=1e-6, err_msg=field)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("old", [False, True])
def test_published_pickles(tmp_path, body_arrays, protocol, old):
    if old and protocol == 4:
        pytest.skip("binary-framed names cannot be patched by length")
    path = tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl"
    with fake_modules("chumpy", "chumpy.ch", "chumpy.reordering") as modules:
        content = as_published(body_arrays, *chumpy_classes(modules))
        write(path, content, protocol)
    assert "chumpy" not in sys.modules
    body = load_body(old_names(path) if old else path)
    assert_same_body(body, body_arrays)
    assert body.parents == SMPL_PARENTS
    assert (body.gender, body.num_betas) == ("female", 10)


def test_python_two_strings(tmp_path, body_arrays):
    """Python 2 wrote array contents as byte strings, which are read as latin1."""
    array = np.array([1.5, -2.0, 1e300])
    raw = array.tobytes()
    text = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(raw)]) + raw + b"tb."
    )
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02}U\x01\xe9" + text[2:-1] + b"s.")
    np.testing.assert_array_equal(read_arrays(path)["\xe9"], array)


def test_npz_and_a_round_trip(tmp_path, body_arrays):
    path = tmp_path / "SMPL_MALE.npz"
    np.savez(path, **body_arrays)
    body = load_body(path)
    assert_same_body(body, body_arrays)
    assert body.gender == "male" and body.name == "SMPL_MALE"
    save_body(tmp_path / "again.npz", body)
    assert_same_body(load_body(tmp_path / "again.npz"), body_arrays)
    with pytest.raises(ValueError, match="expected suffix .npz"):
        save_body(tmp_path / "again.pkl", body)


def test_num_betas(tmp_path, body_arrays):
    many = np.concatenate([body_arrays["shapedirs"]] * 30, axis=2)
    path = tmp_path / "many.npz"
    np.savez(path, **(body_arrays | {"shapedirs": many}))
    assert load_body(path).num_betas == 10
    assert load_body(path, num_betas=300).num_betas == 300
    with pytest.raises(ValueError, match="expected at least 301 .* found 300"):
        load_body(path, num_betas=301)


def test_genders_in_a_folder(tmp_path, body_arrays):
    folder = tmp_path / "smpl"
    folder.mkdir()
    names = {
        "neutral": "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
        "male": "basicmodel_m_lbs_10_207_0_v1.0.0.pkl",
        "female": "SMPL_FEMALE.npz",
    }
    for i, (gender, name) in enumerate(names.items()):
        arrays = body_arrays | {"v_template": body_arrays["v_template"] + i}
        if name.endswith(".npz"):
            np.savez(folder / name, **arrays)
        else:
            write(folder / name, arrays)
        for where in (folder, tmp_path):
            body = load_body(where, gender=gender)
            assert body.gender == gender
            np.testing.assert_allclose(body.template_m, arrays["v_template"], atol=1e-6)
    assert load_body(tmp_path).gender == "neutral"
    with pytest.raises(FileNotFoundError, match="mano_right.*found.*SMPL_FEMALE.npz"):
        load_body(tmp_path, name="mano_right")
    with pytest.raises(ValueError, match="expected neutral, female or male, got 'x'"):
        load_body(tmp_path, gender="x")


def test_hand(tmp_path, recipe):
    arrays = recipe.mano_like(0)
    recipe.write_pkl(arrays, tmp_path / "MANO_RIGHT.pkl")
    hand = load_body(tmp_path, name="mano_right")
    assert hand.parents == MANO_PARENTS and hand.gender == ""
    np.testing.assert_allclose(
        hand.hand_components, arrays["hands_components"], atol=1e-6
    )
    np.testing.assert_allclose(hand.hand_mean, arrays["hands_mean"], atol=1e-6)


def test_extra_regressors(tmp_path, body_arrays, rng):
    np.savez(tmp_path / "a.npz", **body_arrays)
    regressor = rng.uniform(size=(17, 60))
    np.save(tmp_path / "J.npy", regressor)
    files = {"h36m_17": tmp_path / "J.npy"}
    body = load_body(tmp_path / "a.npz", extra_regressors=files)
    np.testing.assert_allclose(
        body.extra_joint_regressors["h36m_17"], regressor, atol=1e-6
    )
    np.save(tmp_path / "J.npy", regressor[:, :59])
    with pytest.raises(ValueError, match=r"J.npy.*\(K, 60\), found \(17, 59\)"):
        load_body(tmp_path / "a.npz", extra_regressors=files)
    with pytest.raises(FileNotFoundError, match="none.npy"):
        load_body(tmp_path / "a.npz", extra_regressors={"x": tmp_path / "none.npy"})


def test_pose_correctives_of_zeros_are_dropped(tmp_path, body_arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **(body_arrays | {"posedirs": 0 * body_arrays["posedirs"]}))
    assert not load_body(path).has_pose_dirs


def changed(arrays, field, how):
    if how == "missing":
        return {k: v for k, v in arrays.items() if k != field}
    value = np.array(arrays[field])
    if how == "shape":
        value = value[..., :-1] if field != "kintree_table" else value[:1]
    elif how == "nan":
        value = value.astype(float)
        value.flat[3] = np.nan
    elif how == "text":
        value = np.full(value.shape, "x")
    return arrays | {field: value}


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize("how", ["missing", "shape", "nan", "text", "objects"])
def test_bad_fields_are_named(tmp_path, body_arrays, how, suffix):
    for field in PUBLISHED:
        if (how, field) in (("missing", "posedirs"), ("shape", "shapedirs")):
            continue  # a body may lack them, or have fewer shape directions
        arrays = changed(body_arrays, field, "none" if how == "objects" else how)
        if how == "objects":
            arrays[field] = np.array([{}, []], object)
        path = tmp_path / ("bad" + suffix)
        np.savez(path, **arrays) if suffix == ".npz" else write(path, arrays)
        with pytest.raises(ValueError) as error:
            load_body(path)
        message = str(error.value)
        assert str(path) in message and repr(field) in message, message
        if how == "shape":
            assert "expected" in message and "found" in message, message


def test_bad_indices(tmp_path, body_arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **(body_arrays | {"f": body_arrays["f"] + 60}))
    with pytest.raises(ValueError, match=r"'f': expected vertex indices 0\.\.59"):
        load_body(path)
    tree = body_arrays["kintree_table"].copy()
    tree[0, 1] = 7
    np.savez(path, **(body_arrays | {"kintree_table": tree}))
    with pytest.raises(ValueError, match="kintree_table.*parents before children"):
        load_body(path)


def test_bad_files(tmp_path, body_arrays):
    with pytest.raises(FileNotFoundError, match="none.pkl"):
        load_body(tmp_path / "none.pkl")
    whole = write(tmp_path / "whole.pkl", body_arrays).read_bytes()
    np.savez(tmp_path / "whole.npz", **body_arrays)
    whole_npz = (tmp_path / "whole.npz").read_bytes()
    for name, content in {
        "short.pkl": whole[: len(whole) // 2],
        "empty.pkl": b"",
        "text.pkl": b"not a pickle",
        "list.pkl": pickle.dumps([1, 2], 2),
        "short.npz": whole_npz[: len(whole_npz) // 2],
        "empty.npz": b"",
        "body.obj": b"v 0 0 0",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_body(tmp_path / name)
