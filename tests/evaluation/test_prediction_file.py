"""Files of predictions: what is read, what is refused, and the numbers of eval."""

import json

import jax
import numpy as np
import pytest

from hmr_jax.__main__ import main
from hmr_jax.errors import UserError
from hmr_jax.evaluation import prediction_file
from hmr_jax.evaluation.truth import target_vertices
from hmr_jax.systems.ikol.evaluate import held_out
from tests.test_configs import load

pytest.importorskip("tensorflow")
PROTOCOLS = ("pw3d_14", "smpl_24", "h36m_p2_14", "pve")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven labelled records."""
    from data_pipelines.builders import conversion
    from tests.data_pipelines.people import People

    path = tmp_path_factory.mktemp("data")
    conversion.build(lambda: People((("test", 11),)), path, progress=False)
    return path


@pytest.fixture(scope="module")
def scorer(folder, open_body):
    config, _ = load("quickstart", "quicktest")
    with config.unlocked():
        config.eval.update({"source": "people_smpl_24", "limit": 0, "batch_size": 64})
    return held_out(config, open_body, folder, PROTOCOLS)


def guess(batch):
    """The truth, moved by noise that the record's place seeds."""
    places = np.asarray(batch["sample_index"]).tolist()
    noise = [np.random.default_rng(place) for place in places]
    joints_17 = np.asarray(batch["joints_h36m_cam_m"])[..., :3]
    joints_24 = np.asarray(batch["joints_cam_m"])[..., :3]
    return {
        "joints_h36m_17_m": joints_17 + [0.1 * r.normal(size=(17, 3)) for r in noise],
        "joints_smpl_24_m": joints_24 + [0.1 * r.normal(size=(24, 3)) for r in noise],
    }


@pytest.fixture(scope="module")
def predicted(scorer, open_body, tmp_path_factory):
    """What eval scores, and the same predictions in a file."""
    truth = jax.jit(target_vertices)

    def predict(batch):
        names = ("pose_aa", "betas", "joints_h36m_cam_m")
        meshes = np.asarray(truth(*(batch[name] for name in names), open_body))
        return guess(batch) | {"vertices_m": 1.1 * meshes, "target_vertices_m": meshes}

    def by_record():
        for batch in scorer.batches():
            kept = np.flatnonzero(np.asarray(batch["valid"]) > 0)
            index = np.asarray(batch["sample_index"])[kept]
            found = {k: v[kept] for k, v in predict(batch).items() if k[0] != "t"}
            yield scorer.names(index), found

    path = tmp_path_factory.mktemp("predictions") / "mine.npz"
    assert prediction_file.write_predictions(path, by_record()) == 11
    return scorer.score(predict), path


def test_a_file_gives_exactly_the_numbers_of_eval(predicted, folder, tmp_path, capfd):
    expected, path = predicted
    words = [
        "eval",
        f"--predictions={path}",
        f"--data={folder / 'people_smpl_24'}",
        f"--protocols={','.join(PROTOCOLS)}",
        f"--out={tmp_path}",
    ]
    assert main(words) == 0
    written = json.loads((tmp_path / "eval.json").read_text())
    found = written["rows"]["predictions"]
    assert found["protocols"] == expected.to_json()["protocols"]
    assert found["num_samples"] == 11
    assert written["data_fingerprint"] and written["versions"]
    out = capfd.readouterr().out
    assert "pw3d_14 PA-MPJPE" in out and written["data_fingerprint"] in out


def change(path, tmp_path, **arrays):
    whole = dict(np.load(path)) | arrays
    kept = {k: v for k, v in whole.items() if v is not None}
    np.savez(tmp_path / "other.npz", **kept)
    return tmp_path / "other.npz"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"sample_id": None}, "other.npz: sample_id: .*found none"),
        ({"sample_id": np.arange(11)}, r"sample_id: .*found int64 \[11\]"),
        ({"sample_id": np.array(["a"] * 11)}, "each record once, found 'a' 11 times"),
        ({"vertices_m": np.zeros((3, 2, 3))}, r"vertices_m: expected 11 rows .*\[3, 2"),
    ],
)
def test_other_files_are_refused(predicted, tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        prediction_file.read_predictions(change(predicted[1], tmp_path, **arrays))


def test_what_does_not_fit_the_records_is_named(predicted, folder, tmp_path, open_body):
    from data_pipelines import records

    def score(protocols, **arrays):
        path = change(predicted[1], tmp_path, **arrays)
        return prediction_file.score_predictions(
            prediction_file.read_predictions(path),
            records.read_records(folder / "people_smpl_24", "test"),
            "smpl_24",
            protocols,
            open_body,
        )

    ids = np.load(predicted[1])["sample_id"]
    renamed = np.where(ids == ids[2], "nobody", ids)
    with pytest.raises(UserError, match=f"found none for '{ids[2]}' .1 of the 11"):
        score(["pw3d_14"], sample_id=renamed)
    with pytest.raises(UserError, match=r"vertices_m: expected \[N, \d+, 3\] as the"):
        score(["pve"], vertices_m=np.zeros((11, 5, 3)))
    with pytest.raises(UserError, match="smpl_24 expects 'joints_smpl_24_m'"):
        score(["smpl_24"], joints_smpl_24_m=None)
    broken = np.load(predicted[1])["joints_h36m_17_m"].copy()
    broken[4] = np.nan
    with pytest.raises(UserError, match=f"not finite .*{ids[4]}"):
        score(["pw3d_14"], joints_h36m_17_m=broken)
