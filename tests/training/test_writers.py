import json

import numpy as np
import pytest

from hmr_jax.training import records, writers


def read_events(folder):
    from tensorboard.backend.event_processing import event_accumulator

    accumulator = event_accumulator.EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_tensorboard_reads_back_what_was_written(tmp_path):
    writer = writers.EventWriter(tmp_path)
    for step in (1, 2):
        writer.write_scalars(step, {"loss/total": np.float32(step) / 4})
    image = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 4, 3)
    writer.write_images(2, {"overlay": image, "grey": image[:, :, :1]})
    writer.close()
    events = read_events(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("loss/total")] == [
        (1, 0.25),
        (2, 0.5),
    ]
    assert {"overlay", "grey"} <= set(events.Tags()["images"])
    assert events.Images("overlay")[0].encoded_image_string.startswith(b"\x89PNG")


def test_resumed_run_hides_the_steps_it_writes_again(tmp_path):
    first = writers.run_writer(tmp_path)
    for step in range(1, 6):
        first.write_scalars(step, {"loss/total": 1.0})
    first.close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "loss/to')  # the process died here
    second = writers.run_writer(tmp_path, from_step=3)
    second.write_scalars(4, {"loss/total": 2.0})
    second.close()
    found = [
        (e.step, e.value)
        for e in read_events(tmp_path / "events").Scalars("loss/total")
    ]
    assert found == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").open()]
    assert [(row["step"], row["loss/total"]) for row in rows] == found


def test_curves_are_drawn(tmp_path):
    writer = writers.JsonlWriter(tmp_path / "log.jsonl")
    for step in range(1, 5):
        writer.write_scalars(step, {"loss/total": 1 / step, "eval/error_mm": 90.0})
    writer.close()
    records.plot_curves(tmp_path / "log.jsonl", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_run_record_guards_seed_and_data(tmp_path, caplog):
    def record(**changes):
        values = {"config": {"a": {"b": 1}}, "seed": 1, "data_fingerprint": "x"}
        return records.RunRecord(tmp_path / "run.json", **(values | changes))

    record().check()
    assert not list(tmp_path.iterdir())
    record().write()
    before = records.read_json(tmp_path / "run.json")
    assert before["versions"]["jax"]
    record(config={"a": {"b": 2}}).check()
    with pytest.raises(ValueError, match="data_fingerprint 'x', found 'y' now"):
        record(data_fingerprint="y").check()
    with pytest.raises(ValueError, match="seed 1, found 2 now"):
        record(seed=2).check()
    record(seed=2, allow_other_data=True).check()
    assert records.read_json(tmp_path / "run.json") == before


def test_differences_are_named():
    before, now = {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}
    assert records.differences(before, now, "config") == [
        "config.a.c: 2 -> 3",
        "config.a.d: None -> 4",
    ]
