"""The numbers of a config, checked before anything is done with them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hmr_jax.errors import UserError


class Range(NamedTuple):
    """What a number may be.

    Attributes:
        low: the least value.
        high: the greatest.
        open_low: ``low`` itself is too small.
        open_high: ``high`` itself is too large.
        multiple: what it must be a multiple of; 0 for nothing.
    """

    low: int | float
    high: int | float = math.inf
    open_low: bool = False
    open_high: bool = False
    multiple: int = 0

    def holds(self, value: int | float) -> bool:
        """Whether a number is within it."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and not (self.multiple and value % self.multiple)

    def __str__(self) -> str:
        words = f"a number {'above' if self.open_low else 'of at least'} {self.low:g}"
        if self.high < math.inf:
            words += f" and {'below' if self.open_high else 'at most'} {self.high:g}"
        return words + (f", a multiple of {self.multiple}" if self.multiple else "")


_COUNT, _NONE_OR_MORE = Range(1), Range(0)
_SHARE, _POSITIVE = Range(0, 1), Range(0, open_low=True)
_BELOW_ONE = Range(0, 1, open_high=True)

RANGES = {
    "seed": Range(0, 2**32, open_high=True),
    "image_size_px": Range(32, multiple=32),
    "depth_range_m": _POSITIVE,
    "optimizer.learning_rate": _NONE_OR_MORE,
    "optimizer.b1": _BELOW_ONE,
    "optimizer.b2": _BELOW_ONE,
    "optimizer.eps": _POSITIVE,
    "optimizer.momentum": _BELOW_ONE,
    "optimizer.weight_decay": _NONE_OR_MORE,
    "optimizer.clip_global_norm": _NONE_OR_MORE,
    "optimizer.warmup_steps": _NONE_OR_MORE,
    "optimizer.boundary_steps": _NONE_OR_MORE,
    "optimizer.boundary_epochs": _NONE_OR_MORE,
    "optimizer.factor": _POSITIVE,
    "optimizer.final_fraction": _SHARE,
    "train.num_steps": _NONE_OR_MORE,
    "train.num_epochs": _NONE_OR_MORE,
    "train.accumulate": _COUNT,
    "train.log_every": _COUNT,
    "train.checkpoint_every": _NONE_OR_MORE,
    "train.evaluate_every": _NONE_OR_MORE,
    "train.evaluate_every_epochs": _NONE_OR_MORE,
    "train.keep_latest": _COUNT,
    "train.stage2_epoch": _NONE_OR_MORE,
    "train.stage2_step": _NONE_OR_MORE,
    "model.width": _COUNT,
    "model.depth_bins": _COUNT,
    "model.deconv_channels": _COUNT,
    "model.hidden": _NONE_OR_MORE,
    "model.dropout_rate": _BELOW_ONE,
    "model.embedding": _COUNT,
    "model.pose_hidden": _COUNT,
    "model.sigma": _POSITIVE,
    "model.num_betas": _COUNT,
    "model.min_gap": _NONE_OR_MORE,
    "ik.gradient_bound": _NONE_OR_MORE,
    "losses.stage1.num_samples": _COUNT,
    "losses.stage2.num_samples": _COUNT,
    "losses.stage1.overreg": _POSITIVE,
    "losses.stage2.overreg": _POSITIVE,
    "data.batch_size": _COUNT,
    "data.num_threads": _NONE_OR_MORE,
    "data.sources": _NONE_OR_MORE,
    "data.synthetic.train_count": _NONE_OR_MORE,
    "data.synthetic.test_count": _NONE_OR_MORE,
    "data.synthetic.size_px": _COUNT,
    "data.synthetic.seed": Range(0, 2**32, open_high=True),
    "eval.seed": Range(0, 2**32, open_high=True),
    "eval.batch_size": _COUNT,
    "eval.limit": _NONE_OR_MORE,
    "eval.num_samples": _NONE_OR_MORE,
}
RANGES |= {
    f"{section}.{name}": allowed
    for section in ("data", "eval")
    for name, allowed in {
        "poses.stride": _COUNT,
        "poses.limit": _NONE_OR_MORE,
        "poses.num_limits": _NONE_OR_MORE,
        "textures.limit": _NONE_OR_MORE,
        "textures.count": _NONE_OR_MORE,
        "textures.size_px": Range(2),
        "textures.suit_share": _SHARE,
        "backgrounds.count": _NONE_OR_MORE,
        "backgrounds.clutter_share": _SHARE,
    }.items()
}
"""Fields of configs and what their numbers may be; a field of several holds for each
of them. Fields that are not here are only looked at for NaN and infinity: what reads
them checks them."""


def check(config: Mapping[str, Any]) -> None:
    """Refuse numbers that make no sense.

    Args:
        config: a whole experiment, as nested mappings.

    Raises:
        UserError: naming the field, what was expected and what was found.
    """
    for field, value in _numbers(config):
        if not math.isfinite(value):
            raise UserError(f"config.{field}: expected a finite number, found {value}")
    for field, allowed in RANGES.items():
        for name, value in _numbers(_of(config, field), field):
            if not allowed.holds(value):
                raise UserError(f"config.{name}: expected {allowed}, found {value:g}")


def _of(config: Any, field: str) -> Any:
    for part in field.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return None
        config = config[part]
    return config


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number at or below a value, with its field's name."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _numbers(part, f"{name}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
