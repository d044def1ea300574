import gc
import shutil
import uuid
from unittest import mock

import jax
import numpy as np
import optax
import orbax.checkpoint
import pytest
from orbax.checkpoint import v1 as ocp

from hmr_jax import remote
from hmr_jax.training import checkpoints, state
from tests.training import fakes

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


@pytest.fixture(scope="module")
def start():
    task = fakes.make_task(norm=True)
    made = state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
    return jax.device_get(made)


def at(start, step):
    return start.replace(step=np.asarray(step, np.int32))


def test_keeps_the_latest_and_the_best(start, tmp_path):
    scores = {1: 5.0, 2: 1.0, 3: None, 4: 4.0, 5: float("nan"), 6: 6.0}
    with checkpoints.Checkpoints(tmp_path, best_metric="error_mm") as store:
        for step, score in scores.items():
            store.save(
                at(start, step), metrics=None if score is None else {"error_mm": score}
            )
        assert (store.steps, store.best, store.latest) == ([2, 5, 6], 2, 6)
    with checkpoints.Checkpoints(
        tmp_path, best_metric="error_mm", best_mode="max", read_only=True
    ) as store:
        assert store.best == 6
        assert store.steps == [2, 5, 6]


def test_restores_every_array_and_the_data_position(start, tmp_path):
    position = {"iterator": {"epoch": 3, "records": [1, 2]}}
    with checkpoints.Checkpoints(tmp_path) as store:
        store.save(at(start, 7), extra=position)
    with checkpoints.Checkpoints(tmp_path) as store:
        found, extra = store.restore(jax.eval_shape(lambda: at(start, 0)))
        variables = store.restore_variables()
    assert extra == position
    jax.tree.map(np.testing.assert_array_equal, found, at(start, 7))
    jax.tree.map(np.testing.assert_array_equal, variables, start.variables)


def test_saving_a_step_again_changes_nothing(start, tmp_path):
    with checkpoints.Checkpoints(tmp_path) as store:
        store.save(at(start, 1))
        other = jax.tree.map(lambda x: x + 1, start.params)
        store.save(at(start, 1).replace(params=other))
        found, _ = store.restore(at(start, 0))
    jax.tree.map(np.testing.assert_array_equal, found.params, start.params)


def test_names_what_does_not_fit(start, tmp_path):
    with checkpoints.Checkpoints(tmp_path) as store:
        store.save(at(start, 1))
        wider = jax.tree.map(lambda x: x, start)
        wider.params["first"]["kernel"] = np.zeros((7, 4), np.float32)
        with pytest.raises(
            ValueError, match=r"params/first/kernel: expected \(7, 4\), found \(3, 4\)"
        ):
            store.restore(wider)
        task = fakes.make_task()
        plain = state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
        with pytest.raises(ValueError, match=r"norm/bias: expected nothing, found"):
            store.restore(plain)
        sgd = state.from_variables(start.variables, optax.sgd(0.1))
        with pytest.raises(ValueError, match="opt_state/0: expected nothing"):
            store.restore(sgd)


def test_missing_ones_are_named(start, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        checkpoints.Checkpoints(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()
    with checkpoints.Checkpoints(tmp_path) as store:
        with pytest.raises(FileNotFoundError, match="it has none"):
            store.restore(start)
        store.save(at(start, 4))
        with pytest.raises(FileNotFoundError, match=r"step 5 .* are \[4\]"):
            store.restore(start, step=5)


@pytest.mark.parametrize("lost", ["_CHECKPOINT_METADATA", "state/_METADATA"])
def test_unfinished_folders_are_never_picked_up(start, tmp_path, lost):
    with checkpoints.Checkpoints(tmp_path) as store:
        store.save(at(start, 1))
        store.save(at(start, 2))
    (tmp_path / "2" / lost).unlink()
    (tmp_path / ".hmr_jax-tmp-1234").mkdir()  # a run killed while writing step 3
    before = files_of(tmp_path / "2")
    with checkpoints.Checkpoints(tmp_path) as store:
        assert not (tmp_path / ".hmr_jax-tmp-1234").exists()
        assert store.steps == [1]
        assert int(store.restore(start)[0].step) == 1
        store.save(at(start, 2))
        assert store.steps == [1, 2]
        assert int(store.restore(start)[0].step) == 2
    assert files_of(tmp_path / "2") == before


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def foreign_folders(start, directory):
    """What others may have put beside the checkpoints, under numbers."""
    tree = {"params": {"w": np.ones(3, np.float32)}}
    ocp.save(directory / "100", tree)
    orbax.checkpoint.PyTreeCheckpointer().save(directory / "250", tree)
    with ocp.training.Checkpointer(directory / "of_another") as other:
        other.save(7, tree)
    (directory / "of_another" / "7").rename(directory / "7")
    (directory / "300").mkdir()
    (directory / "300" / "notes.txt").write_text("mine")
    with checkpoints.Checkpoints(directory / "of_another") as store:
        store.save(at(start, 400))
    (directory / "of_another" / "400").rename(directory / "400")


def test_nothing_is_deleted_that_this_run_did_not_write(start, tmp_path):
    with checkpoints.Checkpoints(tmp_path, keep_latest=1) as store:
        store.save(at(start, 290))
    foreign_folders(start, tmp_path)
    names = ("7", "100", "250", "300", "400")
    before = {name: files_of(tmp_path / name) for name in names}
    # 400 is another run's, but a whole checkpoint of ours: the newest there is.
    with checkpoints.Checkpoints(tmp_path, keep_latest=1) as store:
        assert store.steps == [290, 400]
    (tmp_path / "400").rename(tmp_path / "150")
    before["150"] = before.pop("400")
    with checkpoints.Checkpoints(tmp_path, keep_latest=1) as store:
        assert store.unreadable() == ["7", "100", "250", "300"]
        assert int(store.restore(start)[0].step) == 290
        for step in range(291, 304):
            store.save(at(start, step))
        assert store.latest == 303
        store.save(at(start, 300))
    assert before == {name: files_of(tmp_path / name) for name in before}
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in before) == [
        "303",
        "of_another",
    ]


def test_a_taken_name_does_not_stop_a_run(start, tmp_path):
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "notes.txt").write_text("mine")
    with checkpoints.Checkpoints(tmp_path) as store:
        store.save(at(start, 3))
        found, _ = store.restore(start, step=3)
    assert int(found.step) == 3
    assert (tmp_path / "3" / "notes.txt").read_text() == "mine"


def test_metrics_can_be_given_later(start, tmp_path):
    with checkpoints.Checkpoints(tmp_path, best_metric="error_mm") as store:
        store.save(at(start, 3))
        assert (store.best, store.metrics(3)) == (None, None)
        store.save(at(start, 3), metrics={"error_mm": 2.0})
        assert (store.best, store.metrics(3)) == (3, {"error_mm": 2.0})
    assert len(list(tmp_path.iterdir())) == 1
    with checkpoints.Checkpoints(tmp_path, best_metric="error_mm") as store:
        assert (store.best, store.steps) == (3, [3])
        store.save(at(start, 3), metrics={"error_mm": 9.0})
        assert store.metrics(3) == {"error_mm": 2.0}


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _empty(path):
    path.write_bytes(b"")


def _swap(path):
    path.unlink()
    path.mkdir()


HARMS = {"lose": lambda path: path.unlink(), "cut": _cut, "flip": _flip}
HARMS |= {"empty": _empty, "swap": _swap}


@pytest.fixture(scope="module")
def two_saved(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with checkpoints.Checkpoints(folder, best_metric="error_mm") as store:
        store.save(at(start, 1), extra={"iterator": 1}, metrics={"error_mm": 2.0})
        store.save(at(start, 2), extra={"iterator": 2}, metrics={"error_mm": 1.0})
    return folder


# Orbax's event loops complain, unraisably, of what a damaged file broke off.
_ignored = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def complaints_end_here():
    """They come when the garbage is collected: not in another test."""
    yield
    gc.collect()


def unraisable(test):
    return _ignored(pytest.mark.usefixtures("complaints_end_here")(test))


OFTEN = [pytest.param(h, marks=pytest.mark.slow) for h in ("cut", "empty", "swap")]


@unraisable
@pytest.mark.parametrize("harm", ["lose", "flip", *OFTEN])
def test_a_damaged_newest_is_passed_over_and_named(start, two_saved, tmp_path, harm):
    files = sorted(f for f in (two_saved / "2").rglob("*") if f.stat().st_size)
    passed_over = 0
    for number, file in enumerate(f for f in files if f.is_file()):
        folder = tmp_path / str(number)
        shutil.copytree(two_saved, folder)
        HARMS[harm](folder / file.relative_to(two_saved))
        with mock.patch.object(checkpoints.logging, "warning") as warning:
            with checkpoints.Checkpoints(folder, best_metric="error_mm") as store:
                found, extra = store.restore(start)
                step = int(found.step)
                assert store.latest == step
        # Some of orbax's files say nothing of the arrays: all is whole without them.
        assert extra == {"iterator": step} and step in (1, 2)
        jax.tree.map(np.testing.assert_array_equal, found, at(start, step))
        if step == 1:
            passed_over += 1
            text = " ".join(str(call) for call in warning.mock_calls)
            assert str(folder / "2") in text
    assert passed_over >= 4


@unraisable
@pytest.mark.parametrize("file", ["_CHECKPOINT_METADATA", "state/manifest.ocdbt"])
def test_damage_of_the_one_asked_for(start, two_saved, tmp_path, file):
    shutil.copytree(two_saved, tmp_path / "run")
    folder = tmp_path / "run"
    (folder / "2" / file).unlink()
    with checkpoints.Checkpoints(
        folder, best_metric="error_mm", read_only=True
    ) as store:
        # 2 is the best and the latest.
        for which in ("best", "latest"):
            variables, step, origin = store.read_variables(which)
            jax.tree.map(np.testing.assert_array_equal, variables, start.variables)
            assert (step, origin) == (1, str(folder / "1"))
        with pytest.raises(checkpoints.DamagedError, match=rf"{folder}/2: .*s \[1\]"):
            store.read_variables("2")


@unraisable
def test_all_damaged_is_an_error(start, tmp_path):
    with checkpoints.Checkpoints(tmp_path) as store:
        store.save(at(start, 1))
        shutil.rmtree(tmp_path / "1" / "state" / "d")
        with pytest.raises(checkpoints.DamagedError, match="1: damaged.*none is whole"):
            store.restore(start)


@pytest.mark.parametrize("keep", [0, -1])
def test_settings_are_checked(tmp_path, keep):
    with pytest.raises(ValueError, match=f"keep_latest: .*at least 1, found {keep}"):
        checkpoints.Checkpoints(tmp_path, keep_latest=keep)


def test_a_remote_folder_works_the_same(start):
    folder = f"memory://{uuid.uuid4().hex}/checkpoints"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        checkpoints.Checkpoints(folder, read_only=True)
    with checkpoints.Checkpoints(folder, best_metric="error_mm") as store:
        for step, score in {1: 5.0, 2: 1.0, 3: None, 4: 4.0, 5: 6.0}.items():
            metrics = None if score is None else {"error_mm": score}
            store.save(at(start, step), extra={"iterator": step}, metrics=metrics)
        assert (store.steps, store.best) == ([2, 4, 5], 2)
    with checkpoints.Checkpoints(folder, best_metric="error_mm") as store:
        found, extra = store.restore(jax.eval_shape(lambda: at(start, 0)))
        assert store.read_variables("best")[1:] == (2, f"{folder}/2")
    assert extra == {"iterator": 5}
    jax.tree.map(np.testing.assert_array_equal, found, at(start, 5))


def test_an_upload_cut_short_is_no_checkpoint_and_is_cleared(start, monkeypatch):
    folder = f"memory://{uuid.uuid4().hex}"
    with checkpoints.Checkpoints(folder) as store:
        store.save(at(start, 1))
        put = remote.RemotePath.put
        monkeypatch.setattr(
            remote.RemotePath,
            "put",
            lambda path, file: put(path, file) if path.name != "_METADATA" else 1 / 0,
        )
        with pytest.raises(ZeroDivisionError):
            store.save(at(start, 2))
        monkeypatch.undo()
    (remote.RemotePath(folder) / "9" / "mine.txt").write_text("mine")
    with checkpoints.Checkpoints(folder) as store:
        assert store.steps == [1]
        assert not (remote.RemotePath(folder) / "2").exists()
        store.save(at(start, 2))
        assert store.steps == [1, 2]
        store.save(at(start, 9))
        assert store.latest == 9
    assert (remote.RemotePath(folder) / "9" / "mine.txt").read_text() == "mine"


def test_mode_is_checked(tmp_path):
    with pytest.raises(ValueError, match="expected 'min' or 'max', found 'low'"):
        checkpoints.Checkpoints(tmp_path, best_mode="low")
