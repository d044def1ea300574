"""The network's joints on the bodies that configs name, and what is refused."""

import numpy as np
import pytest

from hmr_jax.body.open_assets import write_smpl_npz
from hmr_jax.body.readers import save_body
from hmr_jax.errors import UserError
from hmr_jax.systems.i2l_meshnet import joints
from hmr_jax.systems.i2l_meshnet.task import sizes
from tests.test_configs import load


def config(name="i2l_lixel", **changes):
    made, _ = load(name, "quicktest")
    with made.unlocked():
        made.update_from_flattened_dict(changes)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_body):
    folder = tmp_path_factory.mktemp("bodies")
    save_body(folder / "body.npz", tiny_body)
    np.save(folder / "h36m.npy", tiny_body.extra_joint_regressors["h36m_17"])
    np.save(folder / "wrong.npy", np.ones((16, 60)) / 60)
    write_smpl_npz(folder / "hand.npz", "hand")
    return folder


def of_file(files, **changes):
    given = {
        "body.path": str(files / "body.npz"),
        "body.h36m_regressor": str(files / "h36m.npy"),
        "body.joint_vertices": (5, 6, 7, 8, 9),
    }
    return config(**(given | changes))


def test_open_body():
    made = config()
    body = joints.joint_body(made)
    rows = np.asarray(body.extra_joint_regressors["i2l_smpl_29"])
    np.testing.assert_array_equal(rows[:24], body.joint_regressor)
    ends = joints.ends_of(made, body.num_vertices)
    np.testing.assert_array_equal(rows[24:].argmax(1), ends.regressed)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    # The face is in front of the head, ears at its sides.
    nose, left_eye, right_eye, left_ear, right_ear = rows[24:] @ body.template_m
    assert nose[2] > left_ear[2] and left_eye[0] > right_eye[0]
    assert left_ear[0] > 0 > right_ear[0]
    coco = np.asarray(body.extra_joint_regressors["coco_17"])
    np.testing.assert_array_equal(coco[:5], rows[24:])
    assert sizes(made) == (body.num_vertices, 24, 29, 10)


def test_open_hand():
    made = config("i2l_freihand_lixel")
    hand = joints.joint_body(made)
    places = np.asarray(hand.extra_joint_regressors["mano_21"] @ hand.template_m)
    # Every finger goes on outwards from the wrist: along -x, thumbs towards +z too.
    for finger in range(5):
        chain = places[[0, *range(1 + 4 * finger, 5 + 4 * finger)]]
        steps = np.linalg.norm(chain - places[0], axis=1)
        assert (np.diff(steps) > 0).all(), finger
    assert "coco_17" not in hand.extra_joint_regressors
    assert sizes(made) == (hand.num_vertices, 16, 21, 10)


def test_other_meshes_need_the_vertices(files):
    body = joints.joint_body(of_file(files))
    rows = np.asarray(body.extra_joint_regressors["i2l_smpl_29"])
    np.testing.assert_array_equal(rows[24:].argmax(1), [5, 6, 7, 8, 9])
    unknown = of_file(files, **{"body.joint_vertices": ()})
    with pytest.raises(UserError, match="nose.*mesh of 60 vertices is not known"):
        joints.joint_body(unknown)
    for wrong in ((1, 2, 3), (1, 2, 3, 4, 60)):
        with pytest.raises(UserError, match="5 vertices, each below 60"):
            joints.joint_body(of_file(files, **{"body.joint_vertices": wrong}))


def test_a_hand_is_no_body_and_a_body_no_hand(files, tiny_body):
    hand = of_file(files, **{"body.path": str(files / "hand.npz")})
    with pytest.raises(UserError, match="h36m"):  # of another mesh
        joints.joint_body(hand)
    made = config("i2l_freihand_lixel", **{"body.path": str(files / "body.npz")})
    with pytest.raises(UserError, match="hand of 16 joints.*found 24 joints"):
        joints.joint_body(made)
    read = config("i2l_freihand_lixel", **{"body.path": str(files / "hand.npz")})
    ours = joints.joint_body(config("i2l_freihand_lixel"))
    found = joints.joint_body(read).extra_joint_regressors["mano_21"]
    np.testing.assert_allclose(found, ours.extra_joint_regressors["mano_21"], atol=1e-6)
    missing = config("i2l_freihand_lixel", **{"body.path": str(files / "none.npz")})
    with pytest.raises(FileNotFoundError, match="none.npz"):
        joints.joint_body(missing)


def test_left_hands_are_refused(files):
    left = files / "MANO_LEFT.npz"
    left.write_bytes((files / "hand.npz").read_bytes())
    with pytest.raises(UserError, match="expected a right hand.*MANO_LEFT"):
        joints.joint_body(config("i2l_freihand_lixel", **{"body.path": str(left)}))


def test_regressor_of_coco(files):
    rows = np.random.default_rng(0).dirichlet(np.ones(60), 17)
    np.save(files / "coco.npy", rows)
    body = joints.joint_body(
        of_file(files, **{"body.coco_regressor": str(files / "coco.npy")})
    )
    found = body.extra_joint_regressors["coco_17"]
    np.testing.assert_allclose(found, rows, atol=1e-6)
    wrong = of_file(files, **{"body.coco_regressor": str(files / "wrong.npy")})
    with pytest.raises(UserError, match=r"coco_regressor: expected 17.*found 16"):
        joints.joint_body(wrong)


def test_published_vertices():
    made = config()
    assert joints.ends_of(made, 6890).posed == (331, 2802, 6262, 3489, 3990)
    hand = joints.ends_of(config("i2l_freihand_lixel"), 778)
    assert [i for i in range(5) if hand.regressed[i] != hand.posed[i]] == [2]
