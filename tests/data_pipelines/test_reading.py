"""Streams: complete, shared out, repeatable, resumable; damage is named."""

import functools
import itertools
import json
import shutil
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines import checking, epoch_order, reading, records, schema
from data_pipelines.builders import conversion
from data_pipelines.clips import ClipOptions
from data_pipelines.transforms import i2l, int_hmr, pose_hg
from data_pipelines.transforms.ikol import IkolTransform, ikol_options
from hmr_jax.errors import UserError
from tests.data_pipelines.people import People, build_people, make_record, parsed

SIZE = 32


class Plain:
    """A transform with little in it, quick to trace."""

    joint_set = "smpl_24"
    fields = ("image", "frame_id", "keypoints_px", "has_smpl")
    num_uniforms = 2

    def labels(self, parsed_records, uniforms):
        labels = {
            "frame": parsed_records["frame_id"],
            "keypoints_px": parsed_records["keypoints_px"],
            "has_smpl": tf.cast(parsed_records["has_smpl"], tf.float32),
            "padding": parsed_records["crop_padding"],
        }
        return labels, {"image": parsed_records["image"], "uniforms": uniforms}

    def image(self, plan):
        small = tf.cast(tf.io.decode_png(plan["image"])[:4, :4], tf.float32)
        return small + plan["uniforms"][0]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_people(tmp_path_factory.mktemp("reading"), count=11)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return build_people(tmp_path_factory.mktemp("coco"), count=5, joint_set="coco_17")


def dataset(path, **arguments):
    defaults = {"split": "train", "batch_size": 2, "transform": Plain(), "seed": 7}
    return reading.make_dataset(path, **(defaults | arguments))


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def indices(batches):
    return np.concatenate([b["sample_index"][b["valid"] > 0] for b in batches])


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def test_evaluation_is_in_order_and_padded(built):
    iterator = dataset(built, batch_size=4, num_epochs=1)
    batches = list(iterator)
    assert len(batches) == iterator.steps_per_epoch == 3
    np.testing.assert_array_equal(indices(batches), np.arange(11))
    last = batches[-1]
    np.testing.assert_array_equal(last["valid"], [1, 1, 1, 0])
    np.testing.assert_array_equal(last["has_smpl"], [1, 1, 1, 0])
    assert last["sample_index"].dtype == np.int32
    assert next(iterator, None) is None
    iterator.reset()
    assert_same(list(iterator), batches)
    names = iterator.sample_ids(last["sample_index"][:2])
    assert names == ["person_0008", "person_0009"]


def test_processes_share_the_global_batches_of_one(built):
    alone = take(dataset(built, batch_size=4, shuffle=True), 4)
    parts = [
        take(dataset(built, shuffle=True, process_index=i, process_count=2), 4)
        for i in range(2)
    ]
    for whole, first, second in zip(alone, *parts, strict=True):
        for name in whole:
            together = np.concatenate([first[name], second[name]])
            np.testing.assert_array_equal(together, whole[name])
    shares = [indices(p[:2]) for p in parts]
    assert not set(shares[0]) & set(shares[1])


def test_padded_processes_read_every_record_once(built):
    parts = [
        list(dataset(built, process_index=i, process_count=3, num_epochs=1))
        for i in range(3)
    ]
    assert len({len(p) for p in parts}) == 1
    read = np.concatenate([indices(p) for p in parts])
    np.testing.assert_array_equal(np.sort(read), np.arange(11))


def test_same_seed_same_stream_whatever_the_threads(built):
    runs = [take(dataset(built, shuffle=True, num_threads=n), 8) for n in (1, 3)]
    assert_same(*runs)
    other = take(dataset(built, shuffle=True, seed=8), 8)
    assert not np.array_equal(indices(runs[0]), indices(other))
    # Five batches make an epoch: the record left out changes, each comes once.
    assert len(set(indices(runs[0][:5]))) == 10


def test_resumed_stream_equals_the_uninterrupted_one(built):
    whole = take(dataset(built, shuffle=True), 12)
    first = dataset(built, shuffle=True)
    assert_same(take(first, 7), whole[:7])
    state = json.loads(json.dumps(first.state()))
    assert (state["epoch"], state["step"]) == (1, 2)
    second = dataset(built, shuffle=True)
    second.restore(state)
    assert second.epoch == 1
    assert_same(take(second, 5), whole[7:])
    first.restore(first.state(unused=3))
    assert_same(take(first, 2), whole[4:6])
    # The same global batches with another number of processes.
    half = dataset(built, batch_size=1, shuffle=True, process_count=2, process_index=1)
    half.restore(state)
    np.testing.assert_array_equal(
        next(half)["sample_index"], whole[7]["sample_index"][1:]
    )


def test_a_state_of_other_data_is_refused(built, coco):
    state = dataset(built, shuffle=True).state()
    with pytest.raises(ValueError, match="seed: expected 9, found 7"):
        dataset(built, shuffle=True, seed=9).restore(state)
    with pytest.raises(ValueError, match="batch_size: expected 3, found 2"):
        dataset(built, shuffle=True, batch_size=3).restore(state)
    with pytest.raises(ValueError, match="steps_per_epoch|fingerprint"):
        dataset(coco, shuffle=True).restore(state)


def test_mixture_maps_joints_by_name(built, coco):
    iterator = dataset(
        [built, coco], batch_size=8, shuffle=True, weights=(0.5, 0.5), seed=1
    )
    assert iterator.num_records == 16
    assert iterator.steps_per_epoch == 1
    batches = take(iterator, 4)
    index = indices(batches)
    assert 8 < (index < 11).sum() < 24
    keypoints = np.concatenate([b["keypoints_px"] for b in batches])
    expected = [make_record(i)["keypoints_px"] for i in index[index < 11]]
    np.testing.assert_allclose(keypoints[index < 11], expected, rtol=1e-6)
    body = (4, 5, 7, 8, 16, 17, 18, 19, 20, 21)
    visible = np.isin(np.arange(24), body)
    for place, found in zip(index, keypoints, strict=True):
        if place >= 11:
            record = make_record(place - 11, joint_set="coco_17")
            np.testing.assert_array_equal(found[:, 2], visible)
            # specs/ikol.md, section 14.2: knees 4/5 <- 13/14.
            np.testing.assert_allclose(
                found[4:6, :2], record["keypoints_px"][13:15, :2], rtol=1e-6
            )
    unmixed = dataset([built, coco], num_epochs=1)
    np.testing.assert_array_equal(indices(list(unmixed)), np.arange(16))


class Weighing(Plain):
    """Names what carries weight, whatever it is called."""

    weights = ("keypoints_px",)


def test_declared_weights_of_padding_are_zero(built):
    *_, last = dataset(built, batch_size=4, num_epochs=1, transform=Weighing())
    assert last["keypoints_px"][:3, :, 2].all() and not last["keypoints_px"][3:].any()
    clips = ClipOptions(3, sampling="all")
    batches = list(dataset(built, num_epochs=1, transform=Weighing(), clips=clips))
    # Windows of 4, 4 and 3 frames: a repeated frame is trained on, a filler is not.
    keypoints, valid = (
        np.concatenate([batch[name] for batch in batches])
        for name in ("keypoints_px", "valid")
    )
    filler = ~valid.any(1)
    assert (valid[~filler] == 0).any() and filler.any()
    assert keypoints[~filler][..., 2].all() and not keypoints[filler].any()


@pytest.mark.parametrize("name", ["ikol", "i2l", "int_hmr", "pose_hg"])
def test_padding_has_no_weight_in_any_system(built, name):
    made = {
        "ikol": lambda: IkolTransform(ikol_options(train=True, image_size_px=SIZE)),
        "i2l": lambda: i2l.I2lTransform(i2l.i2l_options(train=True)),
        "int_hmr": lambda: int_hmr.IntTransform(
            int_hmr.int_options(clips=False, train=True)
        ),
        "pose_hg": lambda: pose_hg.PoseHgTransform(pose_hg.pose_hg_options(train=True)),
    }[name]()
    (batch,) = dataset(built, batch_size=12, num_epochs=1, transform=made)
    np.testing.assert_array_equal(batch["valid"], [1] * 11 + [0])
    for key in made.weights:
        assert not batch[key][-1].any(), key
    masks = ("_weight", "_mask", "_valid", "_trunc", "has_smpl", "is_3d")
    for key in (key for key in batch if key.endswith(masks)):
        trains = name == "pose_hg" and key == "is_3d"  # says what, not how much
        assert trains or not batch[key][-1].any(), key


class Further(Plain):
    """Reads a field and a fact that only some datasets have."""

    fields = (*Plain.fields, "world_m")
    extras = (schema.FieldSpec("world_m", "float32", (3,)),)
    traits = {"stretch": 2.0}

    def labels(self, parsed_records, uniforms):
        labels, plan = super().labels(parsed_records, uniforms)
        names = ("world_m", "stretch")
        return labels | {name: parsed_records[name] for name in names}, plan


class Wide(People):
    name = "wide"
    traits = {"stretch": 3.0, "of_another_transform": 1.0}

    def __init__(self):
        super().__init__()
        self.name = "wide"
        self.spec = schema.RecordSpec(extras=Further.extras)

    def example(self, split, key):
        return super().example(split, key) | {"world_m": [1, 2, 3]}


def test_fields_and_facts_of_some_datasets(built, tmp_path):
    wide = conversion.build(Wide, tmp_path, progress=False)
    both = dataset([built, wide], transform=Further(), batch_size=21)
    (batch,) = take(both, 1)
    np.testing.assert_array_equal(batch["world_m"][:11], 0)
    np.testing.assert_array_equal(batch["world_m"][11:], [[1, 2, 3]] * 10)
    np.testing.assert_array_equal(batch["stretch"], [2] * 11 + [3] * 10)
    (batch,) = take(dataset(built, transform=Further()), 1)
    np.testing.assert_array_equal(batch["world_m"], 0)
    assert "stretch" not in take(dataset(wide), 1)[0]


def test_pipeline_equals_the_transform_run_eagerly(built):
    options = ikol_options(train=True, image_size_px=SIZE, box_jitter=0.5)
    transform = IkolTransform(options)
    iterator = dataset(built, batch_size=3, shuffle=True, transform=transform)
    batch = take(iterator, 4)[-1]
    made_order = epoch_order.Order((11,), 7, True)
    place = np.arange(0, 3)
    record = made_order.epoch(1)[place]
    uniforms = epoch_order.uniforms(made_order.keys(1, place), transform.num_uniforms)
    labels, plan = transform.labels(
        parsed([make_record(i) for i in record]), tf.constant(uniforms)
    )
    np.testing.assert_array_equal(batch["sample_index"], record)
    assert set(labels) | {"image", "valid", "sample_index"} == set(batch)
    for name, value in labels.items():
        np.testing.assert_allclose(batch[name], value, atol=2e-5, err_msg=name)
    for i in range(3):
        pixels = transform.image({k: v[i] for k, v in plan.items()})
        # A colour step is 0.02; positions differ by rounding between the two.
        np.testing.assert_allclose(batch["image"][i], pixels, atol=2e-3)
    again = dataset(built, batch_size=3, shuffle=True, transform=transform)
    again.restore(iterator.state(unused=1))
    assert_same(take(again, 1), [batch])


def test_damage_names_shard_and_record(built, tmp_path):
    copy = shutil.copytree(built, tmp_path / "copy")
    path = sorted(copy.glob("*.tfrecord*"))[1]
    split = records.open_directory(copy).split("train")
    data = bytearray(path.read_bytes())
    data[int(split.offset[8]) + 300] ^= 255
    path.write_bytes(data)
    iterator = dataset(copy, num_epochs=1)
    with pytest.raises(schema.RecordError, match=r"record 2 .*checksum") as caught:
        list(iterator)
    assert str(path) in str(caught.value)
    path.write_bytes(data[:-1])
    with pytest.raises(schema.RecordError, match=f"{path}.*cut off in .*record 4"):
        dataset(copy)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "test"}, schema.RecordError, "split named 'test', found train"),
        ({"batch_size": 12, "shuffle": True}, schema.RecordError, "found 11"),
        ({"batch_size": 0}, ValueError, "batch_size >= 1, found 0"),
        ({"process_index": 1}, ValueError, r"process_index in 0\.\.0, found 1"),
        ({"weights": (1.0,)}, ValueError, "shuffle=True"),
    ],
)
def test_wrong_arguments_are_refused(built, arguments, error, message):
    with pytest.raises(error, match=message):
        dataset(built, **arguments)


def test_another_order_or_body_is_refused(built, coco, tmp_path):
    state = dataset(built, shuffle=True).state()
    with pytest.raises(ValueError, match="shuffle: expected False, found True"):
        dataset(built, drop_remainder=True).restore(state)
    hands = build_people(tmp_path, count=2, joint_set="mano_21")
    with pytest.raises(schema.RecordError, match=r"\(24, 10\) pose joints and betas"):
        dataset([coco, hands])


def test_missing_directory_is_refused(tmp_path):
    with pytest.raises(schema.RecordError, match="expected a directory of records"):
        dataset(tmp_path / "nowhere")


class Wrong(People):
    """People whose 3D joints are changed by a function."""

    def __init__(self, change):
        super().__init__()
        self._change = change

    def example(self, split, key):
        return self._change(super().example(split, key))


def scaled(factor):
    return lambda r: r | {"joints_cam_m": r["joints_cam_m"] * [*[factor] * 3, 1]}


def moved(share):
    def change(r):
        offset = share * max(r["bbox_xywh_px"][2:])
        return r | {"keypoints_px": r["keypoints_px"] + [offset, 0, 0]}

    return change


@pytest.mark.parametrize(
    ("change", "warnings"),
    [
        (lambda r: r, ()),
        (moved(0.01), ()),
        (moved(0.05), ("5.0% of the box's longer side from the 2D joints",)),
        (scaled(1000.0), ("3D joints of 10 of 10 records are not 0.05 to 5 m",)),
        (scaled(0.01), ("is the unit wrong",)),
    ],
)
def test_check_warns_of_what_is_suspicious(tmp_path, caplog, change, warnings):
    path = conversion.build(functools.partial(Wrong, change), tmp_path, progress=False)
    (found,) = checking.check(path)
    assert len(found.warnings) == len(warnings) == len(caplog.messages)
    for line, logged, expected in zip(
        found.warnings, caplog.messages, warnings, strict=True
    ):
        assert expected in line and logged == f"{path}: train: {line}"


def test_check_refuses_joints_that_do_not_project(tmp_path):
    path = conversion.build(
        functools.partial(Wrong, moved(0.3)), tmp_path, progress=False
    )
    with pytest.raises(schema.RecordError, match=r"train: .*median distance of 30\.0%"):
        list(checking.check(path))


def test_transform_protocol_is_met():
    transform: reading.Transform = IkolTransform(ikol_options(train=False))
    make = functools.partial(getattr, transform)
    assert {"image"} <= set(make("fields"))
    assert all(name in schema.FIELD_BY_NAME for name in make("fields"))


@pytest.mark.parametrize(
    ("given", "remote", "least"), [(None, False, 4), (16, False, 16), (None, True, 64)]
)
def test_records_are_opened_side_by_side(tmp_path, monkeypatch, given, remote, least):
    path = build_people(tmp_path, count=80)
    opened = records.record_at
    lock, now, seen = threading.Lock(), [0], [0]

    def wait(data):
        with lock:
            now[0] += 1
            seen[0] = max(seen[0], now[0])
        time.sleep(0.2)
        with lock:
            now[0] -= 1
        return data

    def slow(file, at):
        def slowly(data):
            return tf.ensure_shape(tf.numpy_function(wait, [data], tf.string), [])

        return opened(file, at).map(slowly)

    monkeypatch.setattr(records, "record_at", slow)
    monkeypatch.setattr(reading.storage, "is_local", lambda path: not remote)
    stream = reading.make_dataset(
        path,
        split="train",
        batch_size=80,
        transform=Plain(),
        num_epochs=1,
        num_reads=given,
        num_threads=100,  # the waiting below takes one each; reading does not
    )
    assert next(stream)["frame"].shape == (80,)
    # TensorFlow opens as many again ahead of their turn.
    assert least <= seen[0] <= 3 * least
    with pytest.raises(UserError, match="num_reads >= 1, found 0"):
        reading.make_dataset(
            path, split="train", batch_size=1, transform=Plain(), num_reads=0
        )
