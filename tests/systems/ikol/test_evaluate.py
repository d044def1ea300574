"""Scoring on made-up records: groups by the records' names, samples named in errors."""

import numpy as np
import pytest

from hmr_jax.errors import UserError
from hmr_jax.evaluation.report import format_table
from hmr_jax.systems.ikol import evaluate
from tests.test_configs import load

pytest.importorskip("tensorflow")
ACTIONS = ("02", "02", "05", "16", "05")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five records named as those of Human3.6M."""
    from data_pipelines.builders import conversion
    from tests.data_pipelines.people import People

    class Named(People):
        def example(self, split, key):
            record = super().example(split, key)
            frame = int(key.removeprefix(f"{split}_"))
            clip = f"s_09_act_{ACTIONS[frame]}_subact_01_ca_01"
            names = {"sample_id": f"{clip}_{frame:06d}", "sequence_id": clip}
            return record | names

    path = tmp_path_factory.mktemp("data")
    conversion.build(lambda: Named((("test", 5),)), path, progress=False)
    return path


def make_scorer(folder, tiny_body, *protocols):
    config, _ = load("quickstart", "quicktest")
    with config.unlocked():
        config.eval.source = "people_smpl_24"
        config.eval.limit = 0
    return evaluate.held_out(config, tiny_body, folder, protocols)


def stretched(batch):
    """The truth stretched by a share that grows with the place of the record."""
    index = np.asarray(batch["sample_index"])[:, None, None]
    joints = np.asarray(batch["joints_h36m_cam_m"])[..., :3]
    return {"joints_h36m_17_m": joints * (1 + 0.1 * index)}


def test_actions_come_from_the_names_of_records(folder, tiny_body):
    scorer = make_scorer(folder, tiny_body, "h36m_p2_14", "mpi_inf_3dhp_17")
    report = scorer.score(stretched)
    groups = report.groups["h36m_p2_14"]["action"]
    assert set(groups) == {"Directions", "Greeting", "WalkTogether"}
    assert [groups[name]["MPJPE"].weight for name in sorted(groups)] == [28, 28, 14]
    assert set(report.groups["mpi_inf_3dhp_17"]) == {"sequence"}
    overall = sum(mean["MPJPE"].total for mean in groups.values())
    assert overall == pytest.approx(report.means["h36m_p2_14"]["MPJPE"].total)
    assert "model: h36m_p2_14 by action" in format_table({"model": report})
    assert scorer.score(stretched).to_json() == report.to_json()


def test_protocols_without_groups_need_no_names(folder, tiny_body):
    report = make_scorer(folder, tiny_body, "pw3d_14").score(stretched)
    assert report.groups == {"pw3d_14": {}}
    assert "\n\n" not in format_table({"model": report})


def test_an_error_names_the_sample(folder, tiny_body):
    def spoilt(batch):
        found = stretched(batch)
        found["joints_h36m_17_m"][np.asarray(batch["sample_index"]) == 3] = np.nan
        return found

    scorer = make_scorer(folder, tiny_body, "pw3d_14")
    words = "sample 3, record 3, 's_09_act_16_subact_01_ca_01_000003'"
    with pytest.raises(ValueError, match=words):
        scorer.score(spoilt)


def test_the_mean_pose_is_that_of_a_source_with_poses(
    folder, tiny_body, tmp_path, monkeypatch
):
    """As with both published configs, the first source by name has keypoints alone."""
    from data_pipelines.builders import conversion
    from tests.data_pipelines.people import People

    class Keypoints(People):
        def example(self, split, key):
            return super().example(split, key) | {"has_smpl": False}

    source = Keypoints((("train", 4),))
    source.name = "coco"
    conversion.build(lambda: source, tmp_path, progress=False)
    conversion.build(lambda: People((("train", 6),)), tmp_path, progress=False)
    monkeypatch.setattr(evaluate, "_constant", lambda *args, **kwargs: kwargs)
    config, _ = load("quickstart", "quicktest")
    with config.unlocked():
        config.data.sources = {"coco": 0.5, "people_smpl_24": 0.5}
    found = evaluate.mean_pose_predictor(config, tiny_body, tmp_path)({})
    records = [People().example("train", f"train_{i}") for i in range(6)]
    betas = np.mean([record["betas"] for record in records], 0)
    np.testing.assert_allclose(found["betas"][0], betas, rtol=1e-5)
    with config.unlocked():
        config.data.sources = {"coco": 0.5}
    with pytest.raises(UserError, match=r"config.data.sources: .*poses.*found coco"):
        evaluate.mean_pose_predictor(config, tiny_body, tmp_path)
