"""A one-layer task with masked losses, and batches for it: trains in milliseconds."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from hmr_jax.systems.system import Task


class Affine(nn.Module):
    """A dense layer, with batch normalisation and dropout when asked."""

    norm: bool = False
    axis_name: str | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Dense(4, name="first")(x)
        if self.norm:
            x = nn.BatchNorm(
                use_running_average=not train, axis_name=self.axis_name, name="norm"
            )(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop")(x)
        return nn.Dense(2, name="second")(x)


def make_task(weights=None, **model_args) -> Task:
    model = Affine(**model_args)

    def losses(variables, batch, assets, *, train, rngs):
        # flax's normalisation averages with a mask of lower rank
        out, new = model.apply(
            variables, batch["x"], train=train, rngs=rngs, mutable=["batch_stats"]
        )
        error = jnp.square(out - batch["y"] * assets["scale"]).sum(-1)
        terms = {
            "square": ((error * batch["mask"]).sum(), batch["mask"].sum()),
            "rare": ((error * batch["rare"]).sum(), batch["rare"].sum()),
            "size": (jnp.abs(out).sum(), jnp.float32(out.size)),
        }
        return terms, new.get("batch_stats", {}), {}

    def predict(variables, batch, assets):
        return {"y": model.apply(variables, batch["x"], train=False)}

    def init(rng, batch):
        return model.init(rng, jnp.asarray(batch["x"]), train=False)

    return Task(init, losses, weights or {"square": 1.0, "rare": 0.5}, predict)


def make_batch(index: int, size: int = 8) -> dict[str, np.ndarray]:
    """Batch ``index`` of an endless stream, masked unevenly between its halves."""
    rng = np.random.default_rng([17, index])
    x = rng.standard_normal((size, 3)).astype(np.float32)
    y = (x[:, :2] + 0.3 * x[:, 2:]).astype(np.float32)
    mask = np.ones(size, np.float32)
    mask[size // 2 + 1 :] = 0.0  # the second half has one valid sample
    rare = np.zeros(size, np.float32)
    rare[index % size] = 0.25  # one device has none of it
    return {"x": x, "y": y, "mask": mask, "rare": rare}


ASSETS = {"scale": np.float32(2.0)}


class Stream:
    """A resumable iterator over ``make_batch``."""

    def __init__(self, size: int = 8):
        self.size = size
        self.index = 0

    def __iter__(self):
        return self

    def __next__(self):
        batch = make_batch(self.index, self.size)
        self.index += 1
        return batch

    def state(self):
        return {"index": self.index}

    def restore(self, state):
        self.index = state["index"]
