"""Protocols against the numbers the original's evaluators returned and printed."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.evaluation import protocols
from hmr_jax.evaluation.protocols import HP3D_TEST_TO_H36M, PROTOCOLS, get_protocol

# The evaluators print six decimals, of numbers near 100.
PRINTED = 1e-5


@pytest.fixture(scope="module")
def stored(parity_dir):
    with np.load(parity_dir / "ikol" / "ikol_metrics_public.npz") as data:
        return dict(data)


def score(name, predicted, target):
    means = protocols.score(
        get_protocol(name), jnp.asarray(predicted), jnp.asarray(target)
    )
    return {metric: mean.compute() for metric, mean in means.items()}


@pytest.mark.parametrize(
    ("name", "source", "prefix"),
    [
        ("pw3d_14", "17", "pw3d/evaluate_xyz_17"),
        ("h36m_p2_14", "17", "h36m_p2/evaluate_xyz_17"),
        ("smpl_24", "24", "pw3d/evaluate_xyz_24"),
    ],
)
def test_joint_protocols_match_the_original(stored, x64, name, source, prefix):
    found = score(name, stored[f"in_pred{source}_m"], stored[f"in_gt{source}_m"])
    printed = stored[f"{prefix}/printed"]
    for metric, expected in zip(["PA-MPJPE", "MPJPE", "x"], printed, strict=False):
        np.testing.assert_allclose(found[metric], expected, atol=PRINTED)
    headline = "MPJPE" if name == "smpl_24" else "PA-MPJPE"
    np.testing.assert_allclose(found[headline], stored[f"{prefix}/returned"], rtol=1e-6)


def test_action_means_match_the_original(stored, x64):
    values = protocols.sample_errors(
        get_protocol("h36m_p2_14"),
        jnp.asarray(stored["in_pred17_m"]),
        jnp.asarray(stored["in_gt17_m"]),
        jnp.ones((36, 17)),
    )["MPJPE"][0]
    actions = stored["in_h36m_action"] - stored["in_h36m_action"].min()
    found = [values[actions == action].mean() for action in range(15)]
    printed = stored["h36m_p2/evaluate_xyz_17/printed"][-15:]
    # Printed with two decimals.
    np.testing.assert_allclose(found, printed, atol=6e-3)


def test_3dhp_matches_the_original_in_its_own_groups(stored, x64):
    target = stored["in_hp3d_gt_test_order_mm"][:, HP3D_TEST_TO_H36M] / 1000.0
    predicted = stored["in_pred17_m"]
    found = score("mpi_inf_3dhp_17_published_groups", predicted, target)
    np.testing.assert_allclose(
        found["MPJPE"], stored["hp3d/evaluate_xyz_17/returned"], rtol=1e-6
    )
    names = ["Head", "Neck", "Shou", "Elbow", "Wrist", "Hip", "Knee", "Ankle"]
    for metric, key in (("PCK", "hp3d/all_pck"), ("AUC", "hp3d/all_auc")):
        listed = [found[f"{metric}/{name}"] for name in names] + [found[metric]]
        np.testing.assert_allclose(listed, stored[key], rtol=1e-6)
    assert found["PCK/Head"] == 100.0


def test_3dhp_default_groups_score_the_joints_they_name():
    from hmr_jax.body.joint_sets import JOINT_SETS

    names = JOINT_SETS["h36m_17"].joints
    groups = PROTOCOLS["mpi_inf_3dhp_17"].groups
    for group, word in [("Wrist", "wrist"), ("Ankle", "ankle"), ("Elbow", "elbow")]:
        found = {names[joint] for joint in groups[group]}
        assert found == {f"left_{word}", f"right_{word}"}
    assert all("knee" in names[joint] for joint in groups["Knee"])


def test_masked_joints_and_padding_do_not_count(stored, x64):
    predicted, target = stored["in_pred17_m"][:4], stored["in_gt17_m"][:4]
    weights = np.ones((4, 17))
    weights[3] = 0.0
    spoilt = np.array(target)
    spoilt[3] = np.nan
    protocol = get_protocol("pw3d_14")
    found = protocols.score(
        protocol, jnp.asarray(predicted), jnp.asarray(spoilt), jnp.asarray(weights)
    )
    expected = protocols.score(
        protocol, jnp.asarray(predicted[:3]), jnp.asarray(target[:3])
    )
    for name, mean in expected.items():
        assert found[name].compute() == pytest.approx(mean.compute(), rel=1e-9)


def test_wrong_inputs_name_the_numbers():
    with pytest.raises(ValueError, match="expected one of"):
        get_protocol("3dpw")
    with pytest.raises(ValueError, match="expected 17 joints .* got 24"):
        protocols.score(
            get_protocol("pw3d_14"), jnp.zeros((2, 24, 3)), jnp.zeros((2, 24, 3))
        )


def test_a_second_branch_is_read_by_its_own_names(rng):
    """The same protocol of the arrays that begin with the branch's name."""
    from hmr_jax.evaluation.evaluator import evaluate

    truth = rng.standard_normal((2, 17, 3)).astype(np.float32)
    predictions = {
        "joints_h36m_17_m": truth + 1.0,  # a shift, which the root takes away
        "param_joints_h36m_17_m": truth * np.float32(2),
        "param_vertices_m": truth * np.float32(2),
        "vertices_m": truth,
    }
    targets = {"joints_h36m_17_m": truth, "vertices_m": truth}
    names = ["pw3d_14", "pw3d_14_param", "pve", "pve_param"]
    report = evaluate(lambda b: predictions, [{}], names, target_fn=lambda b: targets)
    values = report.values()
    assert values["pw3d_14"]["MPJPE"] < 1e-2 < values["pw3d_14_param"]["MPJPE"]
    assert values["pw3d_14_param"]["PA-MPJPE"] < 1e-2
    relative = np.linalg.norm(truth - truth[:, :1], axis=-1).mean() * 1000
    np.testing.assert_allclose(values["pve_param"]["PVE"], relative, rtol=1e-5)
    assert values["pve"]["PVE"] > 100  # about the roots of its own joints
    del predictions["param_vertices_m"]
    with pytest.raises(ValueError, match="'param_vertices_m'"):
        evaluate(lambda b: predictions, [{}], names, target_fn=lambda b: targets)
