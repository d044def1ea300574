import jax
import numpy as np
import optax
import pytest

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
    # What a run killed while writing step 3 leaves.
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    with checkpoints.Checkpoints(tmp_path) as store:
        assert store.steps == [1]
        assert int(store.restore(start)[0].step) == 1
        store.save(at(start, 2))
        assert store.steps == [1, 2]


def test_mode_is_checked(tmp_path):
    with pytest.raises(ValueError, match="expected 'min' or 'max', found 'low'"):
        checkpoints.Checkpoints(tmp_path, best_mode="low")
