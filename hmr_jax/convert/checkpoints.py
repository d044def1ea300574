"""Conversion of whole checkpoints, and ImageNet backbones."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hmr_jax.convert import merge, tables
from hmr_jax.convert.torch_checkpoint import read_torch_checkpoint
from hmr_jax.errors import UserError
from hmr_jax.outside import reading

_CLASSIFIER = r"fc\.(weight|bias)"
_STEM = r"(conv1|bn1)\..*"
BACKBONES = ("backbone",)
"""What a network calls its ResNet, where it has one."""


def convert_checkpoint(
    kind: tables.Checkpoint,
    state_dict: Mapping[str, np.ndarray],
    *,
    template: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turn a published state dict into our variables, strictly.

    Args:
        kind: whose checkpoint it is.
        state_dict: what ``read_torch_checkpoint`` returned.
        template: variables, or their shapes, of the model to be filled.

    Returns:
        ``{'params': ..., 'batch_stats': ...}``, float32.

    Raises:
        UserError: names or shapes that do not fit (all listed).
    """
    table = kind.find_table(state_dict)
    return merge.to_variables(state_dict, table, template=template)


def to_torch_state_dict(
    kind: tables.Checkpoint, variables: Mapping[str, Any], *, depth: int | None = None
) -> dict[str, np.ndarray]:
    """Our variables under the published names, for use with the original's code.

    Args:
        kind: whose checkpoint it is to be.
        variables: ``{'params': ..., 'batch_stats': ...}``.
        depth: of the ResNet, where there is one.

    Returns:
        PyTorch name to array, without the body model's.

    Raises:
        UserError: no depth, or variables that do not fit.
    """
    if depth is None and kind.has_depth:
        raise UserError("depth: expected that of the ResNet, got None")
    constants = {name: array.copy() for name, array in kind.constants.items()}
    table = kind.make_table(variables, depth)
    return constants | merge.to_state_dict(variables, table)


def load_backbone(
    path: str | os.PathLike,
    *,
    template: Mapping[str, Any] | None = None,
    key: str | None = None,
    names: Sequence[str] = BACKBONES,
) -> dict[str, Any]:
    """Read a torchvision ResNet (ImageNet weights, say) as a model's backbones.

    Args:
        path: checkpoint with torchvision's names; the classifier is ignored.
        template: variables, or shapes, of the whole model; its backbones are checked,
            and what one of them lacks before its first block is left out.
        key: see ``read_torch_checkpoint``.
        names: of the backbones, each of which begins with these weights.

    Returns:
        ``{'params': {'backbone': ...}, 'batch_stats': {'backbone': ...}}``.

    Raises:
        UserError: names or shapes that do not fit (all listed); the file is named.
    """
    state_dict = read_torch_checkpoint(path, key=key)
    found: dict[tuple[str, ...], Any] = {}
    with reading(path, "a ResNet with torchvision's names"):
        depth = tables.find_resnet_depth(state_dict)
        for name in names:
            wanted, ignored = None, [_CLASSIFIER, tables.COUNTER_PATTERN]
            entries = tables.resnet(depth, "", name)
            if template is not None:
                wanted = {k: {name: v[name]} for k, v in template.items()}
                if "conv1" not in template["params"][name]:
                    entries = {
                        k: v for k, v in entries.items() if not re.match(_STEM, k)
                    }
                    ignored.append(_STEM)
            table = tables.Table(entries, ignored=tuple(ignored))
            made = merge.to_variables(state_dict, table, template=wanted)
            found |= flatten_dict(made)
    return unflatten_dict(found)


def with_backbone(
    variables: Mapping[str, Any],
    backbone: Mapping[str, Any],
    *,
    names: Sequence[str] = BACKBONES,
) -> dict[str, Any]:
    """Variables whose backbones are replaced by loaded ones.

    Args:
        variables: of the whole model.
        backbone: what ``load_backbone`` returned.
        names: of the backbones.

    Raises:
        UserError: they differ in names or shapes.
    """
    new, old = flatten_dict(dict(backbone)), flatten_dict(dict(variables))
    inside = {path for path in old if path[1] in names}
    wrong = sorted(
        ".".join(path)
        for path in inside | set(new)
        if path not in inside or path not in new or old[path].shape != new[path].shape
    )
    if wrong:
        raise UserError(f"backbone does not fit the model: {', '.join(wrong)}")
    return unflatten_dict(old | new)
