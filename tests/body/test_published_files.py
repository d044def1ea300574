"""Bodies as people have them: resaved, beside foreign objects, with known errors."""

import argparse
import datetime
import pickle

import numpy as np
import pytest
import scipy.sparse

from hmr_jax.body.genders import gender_of_code
from hmr_jax.body.readers import load_body, save_body
from hmr_jax.errors import UserError
from tests.body.test_readers import assert_same_body


def write(path, content):
    """A dictionary as a pickle or an .npz, as numpy and Python write it."""
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_bytes(pickle.dumps(content, 2))


FOREIGN = np.array({"pelvis": 0}, dtype=object)


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_entries_that_nobody_needs_may_be_anything(tmp_path, body_arrays, suffix):
    path = tmp_path / f"SMPL_NEUTRAL{suffix}"
    beside = {
        "joint2num": FOREIGN,
        "made": np.array(datetime.date(2024, 1, 2), object),
        "options": np.array(argparse.Namespace(lr=1), object),
    }
    write(path, {**body_arrays, **beside})
    assert_same_body(load_body(path), body_arrays)
    write(path, {**body_arrays, "weights": beside["made"]})
    with pytest.raises(UserError, match=r"SMPL_N.*field 'weights'.*datetime\.date"):
        load_body(path)


@pytest.mark.parametrize("kind", ["csc", "csr", "coo"])
@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_sparse_regressors(tmp_path, body_arrays, suffix, kind):
    path = tmp_path / f"body{suffix}"
    for make in (f"{kind}_matrix", f"{kind}_array"):
        sparse = getattr(scipy.sparse, make)(body_arrays["J_regressor"])
        if suffix == ".npz":  # what np.savez makes of it, without a warning
            sparse = np.array(sparse, dtype=object)
        write(path, {**body_arrays, "J_regressor": sparse})
        assert_same_body(load_body(path), body_arrays)


def mano(arrays, mirrored):
    """A hand whose first direction scales it; ``mirrored`` as a left one is."""
    arrays = dict(arrays)
    template = arrays["v_template"] * [0.09, 0.02, 0.04]
    arrays["shapedirs"] = 1e-3 * arrays["shapedirs"]
    arrays["shapedirs"][:, :, 0] = 0.5 * template
    arrays["v_template"] = template * ([-1, 1, 1] if mirrored else [1, 1, 1])
    return arrays


@pytest.mark.parametrize("sign", [1, -1])
def test_the_left_hand_as_published_is_mended(tmp_path, recipe, sign, caplog):
    right, left = tmp_path / "MANO_RIGHT.pkl", tmp_path / "MANO_LEFT.pkl"
    arrays = mano(recipe.mano_like(0), False)
    arrays["shapedirs"] *= sign  # a first direction that makes the hand smaller
    write(right, arrays)
    write(left, {**arrays, "v_template": arrays["v_template"] * [-1, 1, 1]})
    shapes = [np.asarray(load_body(path).shape_dirs_m) for path in (right, left)]
    np.testing.assert_array_equal(shapes[0] * np.array([-1, 1, 1])[:, None], shapes[1])
    assert "MANO_LEFT.pkl: field 'shapedirs'" in caplog.text
    assert "RIGHT" not in caplog.text
    kept = load_body(left, mend=False)
    np.testing.assert_array_equal(kept.shape_dirs_m, shapes[0])
    # One that is right already stays, and so does the mended one when it is saved.
    save_body(tmp_path / "left.npz", load_body(left))
    again = load_body(tmp_path / "left.npz")
    np.testing.assert_array_equal(again.shape_dirs_m, shapes[1])


def test_a_body_is_no_hand(tmp_path, body_arrays, caplog):
    arrays = mano(body_arrays, True)
    write(tmp_path / "SMPL_LEFT.pkl", arrays)
    kept = load_body(tmp_path / "SMPL_LEFT.pkl").shape_dirs_m
    np.testing.assert_allclose(kept, arrays["shapedirs"], rtol=1e-6)
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "gender"),
    [
        ("smpl/female/model.npz", "female"),
        ("smplh/Male/model.pkl", "male"),
        ("smplh/neutral/model.pkl", "neutral"),
        ("body_models/model.npz", "neutral"),
        ("female/SMPL_MALE.npz", "male"),
        ("male/basicModel_f_lbs_10_207_0_v1.0.0.pkl", "female"),
        ("f/model.npz", "neutral"),  # a folder of one letter means nothing
        ("females_and_males/model.npz", "neutral"),
    ],
)
def test_gender_of_a_file_or_its_folder(tmp_path, body_arrays, name, gender):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    write(path, body_arrays)
    assert load_body(path).gender == gender
    assert load_body(path, gender="neutral").gender == "neutral"


def test_genders_in_folders_of_their_own(tmp_path, body_arrays):
    for gender, shift in (("female", 1.0), ("male", 2.0), ("neutral", 3.0)):
        folder = tmp_path / "smplh" / gender
        folder.mkdir(parents=True)
        template = body_arrays["v_template"] + shift
        write(folder / "model.npz", {**body_arrays, "v_template": template})
        found = load_body(tmp_path / "smplh", gender=gender)
        np.testing.assert_allclose(found.template_m, template, rtol=1e-6)
        assert found.gender == gender


@pytest.mark.parametrize(
    ("code", "gender"),
    [
        ("m", "male"),
        (b"F", "female"),
        ("Neutral ", "neutral"),
        (np.array(b"female"), "female"),
        (np.array(["male"]), "male"),
        *((code, None) for code in ("x", "", 3, None, b"\xff", "mal", np.zeros(2))),
    ],
)
def test_codes_of_genders(code, gender):
    assert gender_of_code(code) == gender
