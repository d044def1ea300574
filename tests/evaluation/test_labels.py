"""Labels of samples from the names that the datasets give them."""

import pytest

from hmr_jax.evaluation.labels import H36M_ACTIONS, sample_labels

H36M = "s_09_act_02_subact_01_ca_03"
TS = "TS3/imageSequence"


@pytest.mark.parametrize(
    ("sample_id", "sequence_id", "activity", "expected"),
    [
        (f"{H36M}_000021", H36M, 0, {"action": "Directions", "sequence": H36M}),
        (
            f"S9/{H36M.replace('02', '16', 1)}/x_000021",
            "",
            0,
            {"action": "WalkTogether"},
        ),
        (f"{TS}/img_000007", TS, 4, {"sequence": "TS3", "activity": "4"}),
        (f"mpi_inf_3dhp_test_set/{TS}/img_1", "", 0, {"sequence": "TS3"}),
        ("TS6_000001", "TS6", 0, {"sequence": "TS6"}),
        ("s_09_act_17_subact_01", "", 0, {}),
        ("person_0001", "downtown_TSX", 0, {"sequence": "downtown_TSX"}),
        ("00001", "", 0, {}),
    ],
)
def test_names_of_the_datasets(sample_id, sequence_id, activity, expected):
    assert sample_labels(sample_id, sequence_id, activity) == expected


def test_human36m_has_fifteen_actions():
    found = [sample_labels(f"act_{n:02d}_x", "")["action"] for n in range(2, 17)]
    assert found == list(H36M_ACTIONS) and len(set(found)) == 15
