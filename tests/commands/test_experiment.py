import dataclasses

import jax
import numpy as np
import pytest

from hmr_jax.body.readers import save_body
from hmr_jax.commands import experiment
from hmr_jax.export.params import save_params
from tests.test_configs import load


def config(arg="quicktest", **changes):
    made, _ = load("quickstart", arg)
    with made.unlocked():
        made.update_from_flattened_dict(changes)
    return made


def test_length_of_a_run():
    assert experiment.num_steps(config(), 10) == 4
    epochs = {"train.num_steps": 0, "train.num_epochs": 3}
    assert experiment.num_steps(config(**epochs), 10) == 30
    for steps, count in ((0, 0), (4, 3)):
        wrong = {"train.num_steps": steps, "train.num_epochs": count}
        with pytest.raises(ValueError, match=f"found {steps} and {count}"):
            experiment.num_steps(config(**wrong), 10)


def test_limit_cuts_by_validity():
    batches = [{"valid": np.ones(4, np.float32), "x": np.arange(4)}] * 3
    kept = list(experiment.limited(batches, 6))
    assert [b["valid"].tolist() for b in kept] == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert len(list(experiment.limited(batches, 0))) == 3


def test_best_by_follows_the_metric():
    assert experiment.best_by(config())["best_mode"] == "min"
    changed = config(**{"eval.best_metric": "PCK"})
    assert experiment.best_by(changed) == {
        "best_metric": "pw3d_14/PCK",
        "best_mode": "max",
    }


def test_batch_size_must_divide(monkeypatch):
    with pytest.raises(ValueError, match="multiple of the 2 devices, found 3"):
        experiment._share(3, "config.data.batch_size")


def test_unknown_option_of_the_transform():
    pytest.importorskip("tensorflow")
    wrong = config()
    with wrong.unlocked():
        wrong.data.options.rotations = 3.0
    with pytest.raises(ValueError, match="config.data.options: .*rotations"):
        experiment.transform(wrong, train=True)


def test_start_from_parameters(tmp_path):
    made = config()
    task = experiment.make_task(made)
    shapes = experiment.variable_shapes(task, made)
    ones = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
    path = tmp_path / "params.npz"
    save_params(ones, path)
    start = experiment.start_from(config(**{"start.params": str(path)}), task)
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(start(None)))
    wider = config(**{"start.params": str(path), "model.hidden": 24})
    with pytest.raises(ValueError, match=r"fc1/kernel: expected \(64, 24\), found"):
        experiment.start_from(wider, experiment.make_task(wider))
    both = config(**{"start.params": str(path), "start.workdir": "w"})
    with pytest.raises(ValueError, match="at most one of"):
        experiment.start_from(both, task)
    assert experiment.start_from(made, task) is None


def test_flat_metrics_leave_out_parts():
    values = {"smpl_24": {"MPJPE": 80.0, "x": 30.0, "PCK/Head": 90.0}}
    assert experiment.flat_metrics(values) == {"smpl_24/MPJPE": 80.0}


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
            body = experiment.load_body(with_body(path, gender, folder))
            assert body.gender == gender
            expected = tiny_body.template_m + number
            np.testing.assert_allclose(body.template_m, expected, atol=1e-6)
            assert body.extra_joint_regressors["h36m_17"].shape == (17, 60)
    with pytest.raises(FileNotFoundError, match=r"config\.body\.path: no such file"):
        experiment.load_body(with_body(folder / "none", "neutral", folder))
    changed = with_body(folder, "neutral", folder)
    with changed.unlocked():
        changed.body.h36m_regressor = str(folder)  # must be a file
    with pytest.raises(FileNotFoundError, match=r"config\.body\.h36m_regressor"):
        experiment.load_body(changed)


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
            experiment.load_body(with_body(path, other, folder))
    plain = folder / "mine.npz"  # states none
    plain.write_bytes((folder / f"{names['female']}.npz").read_bytes())
    for gender in names:
        assert experiment.load_body(with_body(plain, gender, folder)).gender == gender


def test_the_open_body_is_neutral():
    with pytest.raises(ValueError, match="the open body is neutral.*found 'female'"):
        experiment.load_body(config(**{"body.gender": "female"}))
    assert experiment.load_body(config()).gender == "neutral"


def test_a_model_with_nan_is_refused():
    good = {"params": {"a": {"kernel": np.ones(3), "bias": np.zeros(2)}}}
    experiment.check_finite(good, "file.npz")
    good["params"]["a"]["bias"][1] = np.nan
    message = r"file.npz: .* params.a.bias \(1 of 2 arrays"
    with pytest.raises(ValueError, match=message):
        experiment.check_finite(good, "file.npz")


def test_sources_without_a_share_are_refused():
    pytest.importorskip("tensorflow")
    made = config()
    with made.unlocked():
        made.data.sources = {"a": 0.0}
    with pytest.raises(ValueError, match="data.sources: expected a positive share"):
        experiment.train_batches(made, "nowhere")
