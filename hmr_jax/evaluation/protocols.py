"""Named evaluation protocols: which joints, root, alignment and averages.

A protocol is usable on anyone's predictions: arrays in its joint set go in, metres, and
means per metric come out, millimetres. Two numbers are comparable only when they come
from the same protocol; the names here say which they are.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hmr_jax.body.joint_sets import JOINT_SETS, LSP_FROM_H36M
from hmr_jax.errors import UserError
from hmr_jax.metrics import pose
from hmr_jax.metrics.accumulate import Mean

MM_PER_M = 1000.0
PCK_THRESHOLD_M = 0.15

# MPI-INF-3DHP's groups, as indices into its own 17 test joints.
_HP3D_TEST_GROUPS = {
    "Head": (0,), "Neck": (1,), "Shou": (2, 5), "Elbow": (3, 6),
    "Wrist": (4, 7), "Hip": (8, 11), "Knee": (9, 12), "Ankle": (10, 13),
}  # fmt: skip
# Position in H36M-17 of each of the 17 test joints: H36M joint i is test joint
# HP3D_TEST_TO_H36M[i], so a test index t stands at HP3D_TEST_TO_H36M.index(t).
HP3D_TEST_TO_H36M = (14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)


def _groups_after_reordering() -> dict[str, tuple[int, ...]]:
    """The test-order groups as indices into the H36M-17 order that is scored."""
    return {
        name: tuple(HP3D_TEST_TO_H36M.index(joint) for joint in joints)
        for name, joints in _HP3D_TEST_GROUPS.items()
    }


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How predicted joints (or vertices) are compared with the truth.

    Attributes:
        name: what results are reported under.
        joint_set: name in ``JOINT_SETS`` of both arrays, or ``vertices``.
        root: joint subtracted from both sides first (of ``root_set``).
        root_set: joint set the root is taken from, where not ``joint_set``.
        joints: indices that are scored; None is all.
        fit_joints: indices the similarity alignment is fitted on; None is all.
        groups: named index groups for PCK and AUC at 150 mm, or None for neither.
        group_by: names of per-sample labels whose values get means of their own.
        headline: the metric a best checkpoint is chosen by.
        source: where the definition comes from.
        branch: what the names of the predicted arrays begin with, of systems that
            predict a body in several ways: ``param_`` reads ``param_vertices_m``.
        alignment: how predictions are aligned, see ``metrics.pose.align``.
    """

    name: str
    joint_set: str
    root: int
    source: str
    root_set: str | None = None
    joints: tuple[int, ...] | None = None
    fit_joints: tuple[int, ...] | None = None
    groups: Mapping[str, tuple[int, ...]] | None = None
    group_by: tuple[str, ...] = ()
    headline: str = "PA-MPJPE"
    branch: str = ""
    alignment: pose.Alignment = "procrustes"

    @property
    def key(self) -> str:
        """Key of the arrays in targets and, behind ``branch``, in predictions."""
        return array_key(self.joint_set)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The overall metrics that tables show."""
        names = ("PVE",) if self.joint_set == "vertices" else ("MPJPE", "PA-MPJPE")
        return names + (("PCK", "AUC") if self.groups is not None else ())

    @property
    def root_key(self) -> str:
        """Key of the arrays the root joint is taken from."""
        return array_key(self.root_set or self.joint_set)


def array_key(joint_set: str) -> str:
    """Name of a joint set's array among predictions and targets, in metres."""
    return "vertices_m" if joint_set == "vertices" else f"joints_{joint_set}_m"


def _protocols() -> dict[str, Protocol]:
    h36m = functools.partial(Protocol, joint_set="h36m_17", root=0)
    smpl = functools.partial(Protocol, joint_set="smpl_24", root=0)
    listed = [
        h36m(
            name="pw3d_14", joints=LSP_FROM_H36M, fit_joints=LSP_FROM_H36M,
            source="3DPW: H36M-regressed joints, pelvis root, 14 joints, aligned on "
            "the 14 (specification of IKOL, 17.2)",
        ),
        h36m(
            name="h36m_p2_14", joints=LSP_FROM_H36M, group_by=("action",),
            source="Human3.6M protocol 2 (subjects 9 and 11, frontal camera): aligned "
            "on all 17, then 14 scored (17.3)",
        ),
        h36m(
            name="mpi_inf_3dhp_17", groups=_groups_after_reordering(),
            group_by=("sequence", "activity"), headline="MPJPE",
            source="MPI-INF-3DHP test: 17 joints; PCK and AUC over the 14 joints of "
            "the data set's own groups (17.4)",
        ),
        h36m(
            name="mpi_inf_3dhp_17_published_groups", groups=_HP3D_TEST_GROUPS,
            group_by=("sequence", "activity"), headline="MPJPE",
            source="as mpi_inf_3dhp_17, with the original's groups: indices of the "
            "test order applied to the H36M order, so that 'Head' is the pelvis (17.4)",
        ),
        smpl(
            name="smpl_24",
            source="all 24 joints of the body, pelvis root (17.2, evaluate_xyz_24)",
        ),
        Protocol(
            name="pve", joint_set="vertices", root=0, root_set="h36m_17",
            headline="PVE",
            source="per-vertex error, both meshes relative to the H36M pelvis (17.2)",
        ),
        h36m(
            name="pw3d_14_unscaled_shift", joints=LSP_FROM_H36M,
            fit_joints=LSP_FROM_H36M, alignment="unscaled_shift",
            source="as pw3d_14, aligned as I2L-MeshNet's first published numbers were "
            "(specification of I2L-MeshNet, 13)",
        ),
        Protocol(
            name="mano_21", joint_set="mano_21", root=0,
            source="all 21 joints of a hand, wrist root (specification of I2L-MeshNet)",
        ),
        Protocol(
            name="pve_hand", joint_set="vertices", root=0, root_set="mano_21",
            headline="PVE",
            source="per-vertex error, both meshes relative to the wrist",
        ),
    ]  # fmt: skip
    hands = ("mano_21", "pve_hand")
    twice = [p for p in listed if p.name.startswith(("pw3d_14", "pve", *hands))]
    listed += [_of_parameters(protocol) for protocol in listed if protocol in twice]
    return {protocol.name: protocol for protocol in listed}


def _of_parameters(protocol: Protocol) -> Protocol:
    """The same for the body of the parameters beside another one."""
    return dataclasses.replace(
        protocol,
        name=f"{protocol.name}_param",
        branch="param_",
        source=f"as {protocol.name}, of the body of predicted parameters, where a "
        "system finds a mesh without them too",
    )


PROTOCOLS: dict[str, Protocol] = _protocols()


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise UserError(f"protocol {name!r}: expected one of {sorted(PROTOCOLS)}")
    return PROTOCOLS[name]


@functools.partial(jax.jit, static_argnames=("fit_joints", "similarity"))
def _errors(predicted, target, weights, fit_joints, similarity):
    """Distances before and after alignment, and absolute errors per axis."""
    fit = jnp.zeros_like(weights)
    index = jnp.asarray(fit_joints or tuple(range(weights.shape[-1])))
    fit = fit.at[..., index].set(1) * weights
    plain = pose.joint_errors(predicted, target)
    if similarity is None:
        return plain, plain, pose.axis_errors(predicted, target)
    aligned = pose.align(predicted, target, similarity, fit)
    return (
        plain,
        pose.joint_errors(aligned, target),
        pose.axis_errors(predicted, target),
    )


def sample_errors(
    protocol: Protocol,
    predicted_m: Float[Array, "batch joints 3"],
    target_m: Float[Array, "batch joints 3"],
    weights: Float[Array, "batch joints"],
    roots: tuple[Float[Array, "batch 3"], Float[Array, "batch 3"]] | None = None,
    root_weights: Float[Array, "batch"] | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every value of a protocol for a batch, with its weight, before any mean.

    Args:
        protocol: what to compute.
        predicted_m: [B, J, 3], metres, in the protocol's joint set.
        target_m: [B, J, 3], metres.
        weights: [B, J], zero for a joint that is missing or a sample that is padding.
        roots: predicted and target root [B, 3], metres; None takes ``protocol.root``.
        root_weights: [B], zero where the target's root is not labelled: such a sample
            counts in no metric but PA-MPJPE. None takes the root's of ``weights``, or
            ones where ``roots`` is given.

    Returns:
        Metric name to (values, weights): millimetres, PCK and AUC in percent.

    Raises:
        UserError: the number of joints is not the joint set's.
    """
    _check_joint_count(protocol, predicted_m, "predicted_m")
    _check_joint_count(protocol, target_m, "target_m")
    weights = jnp.asarray(weights, predicted_m.dtype)
    if root_weights is None:
        own = weights[:, protocol.root]
        root_weights = own if roots is None else jnp.ones_like(own)
    if roots is None:
        roots = (predicted_m[:, protocol.root], target_m[:, protocol.root])
    target_m = jnp.where(weights[..., None] > 0, target_m, jnp.zeros_like(target_m))
    roots = (jnp.nan_to_num(roots[0]), jnp.nan_to_num(roots[1]))
    predicted_m = predicted_m - roots[0][:, None]
    target_m = target_m - roots[1][:, None]
    is_mesh = protocol.joint_set == "vertices"
    similarity = None if is_mesh else protocol.alignment
    plain, aligned, axes = _errors(
        predicted_m, target_m, weights, protocol.fit_joints, similarity
    )
    scored = list(protocol.joints or range(weights.shape[-1]))
    rooted = np.asarray(weights) * (np.asarray(root_weights) > 0)[:, None]
    values = {"PVE" if is_mesh else "MPJPE": (np.asarray(plain) * MM_PER_M)[:, scored]}
    if not is_mesh:
        values["PA-MPJPE"] = (np.asarray(aligned) * MM_PER_M)[:, scored]
        for axis, name in enumerate("xyz"):
            values[name] = (np.asarray(axes)[..., axis] * MM_PER_M)[:, scored]
    result = {name: (value, rooted[:, scored]) for name, value in values.items()}
    if not is_mesh:
        # The alignment moves the root anyway.
        result["PA-MPJPE"] = (values["PA-MPJPE"], np.asarray(weights)[:, scored])
    if protocol.groups is not None:
        result |= _group_scores(protocol.groups, plain, rooted)
    return result


def _check_joint_count(protocol: Protocol, joints, name: str) -> None:
    if protocol.joint_set == "vertices":
        return
    expected = len(JOINT_SETS[protocol.joint_set].joints)
    if joints.shape[-2] != expected:
        raise UserError(
            f"{name} of protocol {protocol.name}: expected {expected} joints "
            f"({protocol.joint_set}), got {joints.shape[-2]}"
        )


def _group_scores(groups, errors_m, weights):
    """PCK and AUC in percent for each named group and for all groups' joints."""
    correct = 100.0 * np.asarray(pose.correct_keypoints(errors_m, PCK_THRESHOLD_M))
    area = 100.0 * np.asarray(pose.area_under_curve(errors_m))
    every = [joint for joints in groups.values() for joint in joints]
    scores = {}
    for name, joints in [*groups.items(), ("all", every)]:
        suffix = "" if name == "all" else f"/{name}"
        index = list(joints)
        scores[f"PCK{suffix}"] = (correct[:, index], weights[:, index])
        scores[f"AUC{suffix}"] = (area[:, index], weights[:, index])
    return scores


def score(
    protocol: Protocol,
    predicted_m: Float[Array, "batch joints 3"],
    target_m: Float[Array, "batch joints 3"],
    weights: Float[Array, "batch joints"] | None = None,
    roots: tuple[Float[Array, "batch 3"], Float[Array, "batch 3"]] | None = None,
    root_weights: Float[Array, "batch"] | None = None,
) -> dict[str, Mean]:
    """Means of every metric of a protocol over a batch of samples.

    Args:
        protocol: what to compute, from ``get_protocol``.
        predicted_m: [B, J, 3], metres, in the protocol's joint set.
        target_m: [B, J, 3], metres.
        weights: [B, J]; None counts every joint.
        roots: predicted and target root [B, 3], metres; None takes ``protocol.root``.
        root_weights: [B], zero where the target's root is not labelled: such a sample
            counts in no metric but PA-MPJPE. None takes the root's of ``weights``, or
            ones where ``roots`` is given.

    Returns:
        Metric name to ``Mean``: millimetres, percent for PCK and AUC.
    """
    predicted_m, target_m = jnp.asarray(predicted_m), jnp.asarray(target_m)
    if weights is None:
        weights = jnp.ones(predicted_m.shape[:-1], predicted_m.dtype)
    values = sample_errors(
        protocol, predicted_m, target_m, weights, roots, root_weights
    )
    return {name: Mean.of(*pair) for name, pair in values.items()}
