"""A system in one file: the centre of a picture's light becomes where a body stands."""

import jax.numpy as jnp
import numpy as np

from hmr_jax.body.forward import body_forward
from hmr_jax.evaluation.evaluator import evaluate
from hmr_jax.evaluation.report import format_table
from hmr_jax.systems.bodies import load_body
from hmr_jax.systems.system import Evaluator, Stage, System, Task

SIDE = 8


def init(rng, batch):
    return {"params": {"dense": {"kernel": jnp.zeros((SIDE * SIDE, 3))}}}


def predict(variables, batch, body):
    flat = batch["image"].reshape(batch["image"].shape[0], -1)
    place_m = flat @ variables["params"]["dense"]["kernel"]
    count = flat.shape[0]
    betas = jnp.zeros((count, body.num_betas))
    posed = body_forward(body, betas, jnp.zeros((count, body.num_joints, 3)))
    return {
        "place_m": place_m,
        "joints_smpl_24_m": posed.joints_m + place_m[:, None],
        "vertices_m": posed.vertices_m + place_m[:, None],
    }


def losses(variables, batch, body, *, train, rngs):
    error = (predict(variables, batch, body)["place_m"] - batch["place_m"]) ** 2
    return {"place": (error.sum(), jnp.float32(error.size))}, {}, {}


def task(config):
    return Task(init, losses, {"place": 1.0}, predict)


def example(row):
    rng = np.random.default_rng(row)
    image = rng.uniform(size=(SIDE, SIDE)).astype(np.float32)
    weights = np.random.default_rng(0).normal(size=(SIDE * SIDE, 3)) / SIDE
    return image, (image.reshape(-1) @ weights).astype(np.float32)


class Examples:
    """Endless batches; the position is a number."""

    steps_per_epoch, num_records, fingerprint = 8, 64, "toy"

    def __init__(self, size):
        self._size, self._at = size, 0

    def __iter__(self):
        return self

    def __next__(self):
        rows = [(self._at * self._size + i) % 64 for i in range(self._size)]
        self._at += 1
        images, places = zip(*map(example, rows), strict=True)
        return {"image": np.stack(images), "place_m": np.stack(places)}

    def state(self):
        return self._at

    def restore(self, state):
        self._at = state


def evaluator(config, body, workdir, *, protocols=(), progress=False):
    batch = next(Examples(8))
    rest = np.asarray(body_forward(body, jnp.zeros(10), jnp.zeros((24, 3))).joints_m)
    joints = rest[None] + batch["place_m"][:, None]
    batch["joints_cam_m"] = np.pad(joints, [(0, 0), (0, 0), (0, 1)], constant_values=1)

    def score(variables):
        return evaluate(lambda b: predict(variables, b, body), [batch], ["smpl_24"])

    return Evaluator(
        metrics=["smpl_24/MPJPE", "smpl_24/PA-MPJPE"],
        score=score,
        table=format_table,
        draw=lambda variables, count, folder: None,
        baselines={},
    )


def people(config, options):
    def find(variables, body, seen):
        count = seen.crops.shape[0]
        step = seen.crops.shape[1] // SIDE
        grey = seen.crops[:, ::step, ::step].mean(-1)
        found = predict(variables, {"image": grey}, body)
        return {
            "vertices_m": found["vertices_m"] - found["place_m"][:, None],
            "camera": jnp.tile(jnp.array([0.8, 0.0, 0.0]), (count, 1)),
            "joints2d_crop_px": found["joints_smpl_24_m"][..., :2],
        }

    return find


SYSTEM = System(
    task=task,
    stages=lambda config, steps_per_epoch, total: [Stage("all", task(config), total)],
    body=load_body,
    assets=lambda config, body: body,
    train_data=lambda config, workdir, assets: Examples(config.data.batch_size),
    evaluator=evaluator,
    evaluates_in_training=lambda config: True,
    inputs=lambda config: {"image": (SIDE, SIDE)},
    examples=lambda config, body, workdir, count: {
        "image": np.stack([example(row)[0] for row in range(count)])
    },
    checkpoint=None,
    people=people,
)
