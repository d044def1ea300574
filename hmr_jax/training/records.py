"""What a run leaves beside its checkpoints: settings, versions, data, loss curve."""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.files import atomic_write
from hmr_jax.outside import json_digest, json_object
from hmr_jax.remote import location
from hmr_jax.training.processes import differences
from hmr_jax.training.writers import read_jsonl

PACKAGES = ("hmr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write JSON, whole or not at all.

    Args:
        path: the file.
        value: JSON values.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike) -> dict[str, Any] | None:
    """The JSON object of a file; None where there is no file.

    Raises:
        UserError: it holds no such thing; the file is named.
    """
    found = location(path)
    if not found.is_file():
        return None
    return json_object(found.read_bytes(), path, "a JSON object")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` says of a run.

    Attributes:
        path: the file.
        config: all settings, JSON values.
        seed: of every random stream.
        data_fingerprint: identifies the training data.
        allow_other_data: resume though seed or data differ from the first start.
    """

    path: str | os.PathLike
    config: Mapping[str, Any]
    seed: int
    data_fingerprint: str
    allow_other_data: bool = False

    def _content(self) -> dict[str, Any]:
        config = json.loads(json.dumps(self.config, default=str))
        return {
            "config": config,
            "config_sha256": json_digest(config),
            "seed": self.seed,
            "data_fingerprint": self.data_fingerprint,
            "versions": package_versions(),
            "devices": [device.device_kind for device in jax.devices()],
        }

    def identity(self) -> dict[str, Any]:
        """What all processes of a run must agree on: config, seed and data."""
        content = self._content()
        return {name: content[name] for name in ("config", "seed", "data_fingerprint")}

    def check(self) -> None:
        """Compare with the file of the run that is resumed; writes nothing.

        Raises:
            UserError: seed or data differ and ``allow_other_data`` is False.
        """
        before, record = read_json(self.path), self._content()
        if before is None:
            return
        for name in ("seed", "data_fingerprint"):
            if before.get(name) != record[name] and not self.allow_other_data:
                raise UserError(
                    f"{self.path}: this run was started with {name} "
                    f"{before.get(name)!r}, found {record[name]!r} now; use another "
                    "workdir, or set resume_with_other_data=True to go on from its "
                    "checkpoint"
                )
        for name in ("config", "versions", "devices"):
            for line in differences(before.get(name), record[name], name):
                logging.warning("resuming with a change: %s", line)

    def write(self) -> None:
        """Write the file."""
        write_json(self.path, self._content())


def plot_curves(log_path: str | os.PathLike, picture: str | os.PathLike) -> None:
    """Draw the losses, the evaluations and the learning rate of a log.

    Args:
        log_path: a ``log.jsonl``.
        picture: the PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read_jsonl(log_path):
        for name, value in row.items():
            drawn = isinstance(value, int | float) and "step" in row
            if drawn and name.partition("/")[0] in ("loss", "eval"):
                curves.setdefault(name, []).append((row["step"], value))
    if not curves:
        return
    columns = min(len(curves), 4)
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4 * columns, 2.5 * rows), squeeze=False
    )
    # A panel for each: their scales have nothing in common. Losses come first.
    ordered = sorted(curves.items(), key=lambda item: (item[0][0] != "l", item[0]))
    for axis, (name, points) in zip(axes.flat, ordered, strict=False):
        axis.plot(*zip(*points, strict=True), marker=".", ms=3, lw=1)
        axis.set_title(name, fontsize="small")
        if all(value > 0 for _, value in points):
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    figure.supxlabel("step", fontsize="small")
    figure.tight_layout()
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)
