import dataclasses

import numpy as np
import pytest

from hmr_jax.body.readers import save_body
from hmr_jax.systems.bodies import load_body
from tests.training.test_trained import config


@pytest.fixture(scope="module")
def body_files(tmp_path_factory, tiny_body):
    """Bodies of each gender under published names; they differ in their template."""
    folder = tmp_path_factory.mktemp("bodies")
    names = {
        "neutral": "SMPL_NEUTRAL",
        "female": "basicModel_f_lbs_10_207_0_v1.0.0",
        "male": "basicmodel_m_lbs_10_207_0_v1.0.0",
    }
    for number, name in enumerate(names.values()):
        body = dataclasses.replace(
            tiny_body, template_planes_m=tiny_body.template_planes_m + number
        )
        save_body(folder / f"{name}.npz", body)
    np.save(folder / "h36m.npy", tiny_body.extra_joint_regressors["h36m_17"])
    return folder, names


def with_body(path, gender, folder):
    regressor = str(folder / "h36m.npy")
    return config(
        **{
            "body.path": str(path),
            "body.gender": gender,
            "body.h36m_regressor": regressor,
        }
    )


def test_the_gender_chooses_the_file_in_a_folder(body_files, tiny_body):
    folder, names = body_files
    for number, gender in enumerate(names):
        for path in (folder, folder / f"{names[gender]}.npz"):
            body = load_body(with_body(path, gender, folder))
            assert body.gender == gender
            expected = tiny_body.template_m + number
            np.testing.assert_allclose(body.template_m, expected, atol=1e-6)
            assert body.extra_joint_regressors["h36m_17"].shape == (17, 60)
    with pytest.raises(FileNotFoundError, match=r"config\.body\.path: no such file"):
        load_body(with_body(folder / "none", "neutral", folder))
    changed = with_body(folder, "neutral", folder)
    with changed.unlocked():
        changed.body.h36m_regressor = str(folder)  # must be a file
    with pytest.raises(FileNotFoundError, match=r"config\.body\.h36m_regressor"):
        load_body(changed)


def test_a_file_of_another_gender_is_refused(body_files):
    folder, names = body_files
    for gender, other in (
        ("neutral", "female"),
        ("female", "male"),
        ("male", "neutral"),
    ):
        path = folder / f"{names[gender]}.npz"
        message = rf"config\.body\.gender.*expected '{gender}'.*found '{other}'"
        with pytest.raises(ValueError, match=message):
            load_body(with_body(path, other, folder))
    plain = folder / "mine.npz"  # states none
    plain.write_bytes((folder / f"{names['female']}.npz").read_bytes())
    for gender in names:
        assert load_body(with_body(plain, gender, folder)).gender == gender


def test_the_open_body_is_neutral():
    with pytest.raises(ValueError, match="the open body is neutral.*found 'female'"):
        load_body(config(**{"body.gender": "female"}))
    assert load_body(config()).gender == "neutral"
