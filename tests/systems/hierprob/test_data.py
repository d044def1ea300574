"""The wiring of hierarchical distributions: stages, poses, backgrounds, commands."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hmr_jax.__main__ import main
from hmr_jax.body.open_assets import load_open_body
from hmr_jax.synthetic.proxies import ProxyAssets
from hmr_jax.synthetic.textures import TextureBank
from hmr_jax.systems.hierprob import data
from hmr_jax.systems.hierprob.system import SYSTEM
from hmr_jax.training.periodic import periodic
from hmr_jax.training.writers import read_jsonl
from tests.test_configs import CONFIGS, load


def config(**changes):
    made, _ = load("hierprob", "quicktest")
    with made.unlocked():
        made.update_from_flattened_dict(changes)
    return made


def ends(made, steps_per_epoch, total):
    found = SYSTEM.stages(made, steps_per_epoch, total)
    return [("vertices" in task.weights, end) for _, task, end in found]


def test_stages_end_where_the_config_says():
    epochs = {"train.stage2_step": 0, "train.stage2_epoch": 66}
    assert ends(config(**epochs), 10, 3000) == [(False, 660), (True, 3000)]
    steps = {"train.stage2_step": 7}
    assert ends(config(**steps), 10, 20) == [(False, 7), (True, 20)]
    assert ends(config(**steps), 10, 5) == [(False, 5)]
    with pytest.raises(ValueError, match="found 0 and -3"):
        ends(config(**{"train.stage2_step": -3}), 10, 5)
    assert ends(config(**{"train.stage2_step": 0}), 10, 5) == [(True, 5)]
    both = {"train.stage2_step": 7, "train.stage2_epoch": 1}
    with pytest.raises(ValueError, match="config.train: .*found 1 and 7"):
        ends(config(**both), 10, 20)


def test_poses_by_the_kind_of_file(tmp_path, rng):
    published = tmp_path / "smpl_train_poses.npz"
    np.savez(
        published, fnames=np.array(["h36m_1", "x"]), poses=rng.normal(size=(2, 72))
    )
    amass = tmp_path / "amass"
    amass.mkdir()
    np.savez(
        amass / "walk_poses.npz",
        poses=rng.normal(size=(6, 156)),
        trans=np.zeros((6, 3)),
    )

    def poses(path, **changes):
        section = config(
            **{f"data.poses.{k}": v for k, v in changes.items()}
        ).data.poses
        section = types.SimpleNamespace(**(section.to_dict() | {"path": str(path)}))
        return data.load_poses(section, "train", 0)

    assert (len(poses(published)), poses(published).upright) == (1, False)
    assert len(poses(published, keep="all")) == 2
    assert (len(poses(amass, stride=2)), poses(amass).upright) == (3, True)
    assert len(poses(amass / "walk_poses.npz")) == 6
    assert len(poses("")) == 937 + 8


def test_roots_must_be_what_the_config_takes_them_for(tmp_path, rng):
    path = tmp_path / "poses.npz"
    np.savez(path, fnames=np.array(["h36m_1"]), poses=rng.normal(size=(1, 72)))
    made = config(**{"data.poses.path": str(path)})
    bank = data.load_poses(made.data.poses, "train", 0)
    with pytest.raises(ValueError, match="root: expected camera_right or camera_left"):
        data.check_root(made, bank)
    with made.unlocked():
        made.data.synthetic.poses.root = "camera_left"
    data.check_root(made, bank)


@pytest.fixture
def assets():
    nothing = TextureBank(np.zeros((1, 2, 2, 3), np.uint8), np.int32(0))
    return ProxyAssets(
        body=None,
        surface=None,
        textures=nothing,
        backgrounds=jnp.zeros((0, 64, 64, 3), jnp.uint8),
        poses_aa=jnp.zeros((20, 24, 3)),
    )


def test_backgrounds_of_a_folder_are_stretched_and_resume(tmp_path, assets):
    # The left half is dark, the right one bright: a part of it would be one of them.
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, 45:] = 240
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels[:, ::-1]).save(tmp_path / "mirrored.png")
    made = config(**{"data.backgrounds.path": str(tmp_path)})
    batches = data.train_batches(made, None, assets)
    assert batches.steps_per_epoch == 5
    first = [next(batches) for _ in range(3)]
    for batch in first:
        assert batch["background"].shape == (4, 64, 64, 3)
        sides = batch["background"][:, 32, [5, 58], 0]
        assert {tuple(pair) for pair in sides.tolist()} <= {(0, 240), (240, 0)}
    place = batches.state()
    expected = next(batches)
    again = data.train_batches(made, None, assets)
    again.restore(place)
    for name, value in next(again).items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_folder_without_pictures(tmp_path, assets):
    made = config(**{"data.backgrounds.path": str(tmp_path)})
    with pytest.raises(ValueError, match="backgrounds: expected pictures .*found none"):
        data.train_batches(made, None, assets)


def test_batches_larger_than_the_bank(assets):
    made = config(**{"data.batch_size": 64})
    with pytest.raises(
        ValueError, match="expected 1 to the 20 poses there are, got 64"
    ):
        data.train_batches(made, None, assets)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("eval.best_metric", "PVE+AUC", r"best_metric: .*found \['AUC'\]"),
        ("eval.batch_size", 0, "config.eval.batch_size: expected at least 1"),
        ("eval.backgrounds.count", 0, "config.eval.backgrounds.count: .*found 0"),
        ("eval.poses.path", "nowhere.npz", "nowhere.npz"),
    ],
)
def test_mistakes_are_found_before_training(field, value, message, tmp_path):
    made = config(**{field: value})
    body = load_open_body()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        periodic(SYSTEM.evaluator(made, body, "run"), made, tmp_path)


@pytest.mark.slow
def test_commands_one_after_another(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("hmr_jax.commands.cli.set_up_logging", lambda: None)
    run, out = tmp_path / "run", tmp_path / "out"
    words = [f"--config={CONFIGS / 'hierprob_cpu.py'}:quicktest", f"--workdir={run}"]
    # The second start goes on in the middle of the second stage.
    assert main(["train", *words, "--config.train.num_steps=3"]) == 0
    assert main(["train", *words]) == 0
    rows = [row for row in read_jsonl(run / "log.jsonl") if "loss/total" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert (run / "loss_curve.png").is_file()
    capfd.readouterr()
    assert main(["eval", f"--workdir={run}", "--baselines", "--pictures=2"]) == 0
    assert "mean pose" in capfd.readouterr().out
    scores = json.loads((run / "eval.json").read_text())["rows"]["trained"]
    assert len(scores["per_frame"]["PVE"]) == 8
    assert (run / "predictions.png").is_file()
    assert main(["export", f"--workdir={run}", f"--out={out}", "--verify"]) == 0
    assert capfd.readouterr().out.count("verified") == 3
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (120, 100, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "one.jpg")
    joints = np.concatenate([rng.uniform(20, 80, (17, 2)), np.ones((17, 1))], 1)
    (tmp_path / "joints.json").write_text(json.dumps({"one.jpg": [joints.tolist()]}))
    words = [
        "predict",
        f"--images={tmp_path / 'one.jpg'}",
        f"--joints2d={tmp_path / 'joints.json'}",
        f"--params={out / 'params.npz'}",
        f"--out={tmp_path / 'predicted'}",
        "--samples=4",
    ]
    assert main(words) == 0
    assert (tmp_path / "predicted" / "one_0.npz").is_file()
    assert (tmp_path / "predicted" / "one_0.png").is_file()
