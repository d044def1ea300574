"""The losses against the original's (public vectors), and where masks are empty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.losses.elementwise import absolute_error
from hmr_jax.losses.reduce import finish, masked, masked_error
from hmr_jax.systems.i2l_meshnet import losses
from hmr_jax.systems.i2l_meshnet.network import gaussian_rows
from tests.systems.i2l_meshnet import vectors

# README of the vectors: means relative, elements, gradients of the largest.
MEAN, ELEMENTS, GRADIENT = 1e-6, 2e-5, 1e-5


@pytest.fixture(scope="module", params=vectors.KINDS)
def case(request, parity_dir, recipe):
    kind = request.param
    joints, count, rotations = vectors.SIZES[kind]
    stored = vectors.load(parity_dir, f"losses_{kind}")
    r = recipe._rng("i2l/loss", 0)
    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    jo, jg = (f32(x) for x in r.uniform(0, 64, (2, 3, joints, 3)))
    jv = f32(r.random((3, joints, 1)) < 0.7)
    mo, mg = (f32(x) for x in r.uniform(0, 64, (2, 2, count, 3)))
    mv = f32(r.random((2, count, 1)) < 0.9)
    po, pg = (f32(x) for x in r.standard_normal((2, 3, 3 * rotations)))
    faces = jnp.asarray(vectors.faces(vectors.body_arrays(recipe, kind)))
    is_3d, fit = f32([[1], [0], [1]]), f32([[1], [1], [0]])
    error = lambda o, g, m: masked_error(  # noqa: E731
        absolute_error, o, g, m, normalize_by="all"
    )
    over_all = lambda v, m: masked(v, m, normalize_by="all")  # noqa: E731
    functions = {
        "coord_3d": (lambda o: error(o, jg, losses.coordinate_mask(jv, is_3d)), jo),
        "coord_fit": (lambda o: error(o, jg, jv * fit[:, None]), jo),
        "coord_mesh": (lambda o: error(o, mg, mv), mo),
        "param": (lambda o: error(o, pg, fit), po),
        "normal": (
            lambda o: over_all(
                losses.normal_errors(o, mg, faces), losses.normal_mask(mv, faces)
            ),
            mo,
        ),
        "edge": (
            lambda o: over_all(
                losses.edge_errors(o, mg, faces), losses.edge_mask(mv, faces)
            ),
            mo,
        ),
    }
    elements = {
        "normal": losses.normal_errors(mo, mg, faces) * losses.normal_mask(mv, faces),
        "edge": losses.edge_errors(mo, mg, faces) * losses.edge_mask(mv, faces),
    }
    return stored, functions, elements, jo


@pytest.mark.parametrize(
    "name", ["coord_3d", "coord_fit", "coord_mesh", "param", "normal", "edge"]
)
def test_means_and_gradients(case, name):
    stored, functions, _, _ = case
    function, inputs = functions[name]
    mean, gradient = jax.value_and_grad(lambda x: finish(*function(x)))(inputs)
    expected = stored[f"{name}_mean"]
    assert abs(float(mean) - expected) <= MEAN * abs(expected)
    assert float(function(inputs)[1]) == np.prod(stored[f"{name}_shape"])
    if name in ("coord_mesh", "normal", "edge"):
        gradient = gradient[:, :: vectors.EVERY]
    expected = stored[f"{name}_grad"]
    error = vectors.largest(gradient, expected)
    assert error <= GRADIENT * np.abs(expected).max()


@pytest.mark.parametrize("name", ["normal", "edge"])
def test_elements(case, name):
    stored, _, elements, _ = case
    assert elements[name].shape == tuple(stored[f"{name}_shape"][:2])
    found = elements[name][:, ::97]
    assert vectors.largest(found, stored[f"{name}_elems"]) <= ELEMENTS


def test_gaussian_volume(case):
    stored, _, _, joints = case
    x, y, z = (gaussian_rows(joints[..., i], 64, 2.5) for i in range(3))
    joint, cells = np.arange(0, joints.shape[1], 5), np.arange(0, 64, 7)
    rows = [axis[:, joint][..., cells] for axis in (x, y, z)]
    volume = jnp.einsum("bjx,bjy,bjz->bjzyx", *rows)
    assert vectors.largest(volume, stored["gauss_heatmap_s"]) < ELEMENTS


def small_batch(rng, *, joints=5, vertices=7):
    r = lambda *s: jnp.asarray(rng.uniform(0, 16, s), jnp.float32)  # noqa: E731
    ones = lambda *s: jnp.ones(s, jnp.float32)  # noqa: E731
    raw = {
        "joints_cells": r(2, joints, 3),
        "vertices_cells": r(2, vertices, 3),
        "mesh_joints_cells": r(2, joints, 3),
    }
    batch = {
        "fit_joint_img": r(2, joints, 3),
        "orig_joint_img": r(2, joints, 3),
        "fit_mesh_img": r(2, vertices, 3),
        "fit_joint_trunc": ones(2, joints, 1),
        "orig_joint_trunc": ones(2, joints, 1),
        "fit_mesh_trunc": ones(2, vertices, 1),
        "is_valid_fit": ones(2, 1),
        "is_3d": ones(2, 1),
    }
    return raw, batch


FACES = jnp.array([[0, 1, 2], [2, 3, 4], [4, 5, 6]])


def test_two_dimensions_leave_depth_alone(rng):
    """A batch of 2D keypoints alone: depth and fits get no gradient, x and y do."""
    raw, batch = small_batch(rng)
    batch |= {"is_3d": jnp.zeros((2, 1)), "is_valid_fit": jnp.zeros((2, 1))}

    def total(raw):
        terms = losses.lixel_losses(raw, batch, FACES)
        return sum(finish(*term) for term in terms.values())

    gradient = jax.grad(total)(raw)
    assert not np.any(gradient["vertices_cells"])
    for name in ("joints_cells", "mesh_joints_cells"):
        assert not np.any(gradient[name][..., 2])
        assert np.all(gradient[name][..., :2] != 0)


def test_nothing_valid_and_vertices_in_a_heap(rng):
    raw, batch = small_batch(rng)
    raw["vertices_cells"] = jnp.ones_like(raw["vertices_cells"])

    def total(raw, batch):
        terms = losses.lixel_losses(raw, batch, FACES)
        assert set(terms) == set(losses.LIXEL)
        return sum(finish(*term) for term in terms.values())

    gradient = jax.grad(total)(raw, batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    masks = ("fit_joint_trunc", "fit_mesh_trunc", "orig_joint_trunc", "is_valid_fit")
    empty = batch | {name: jnp.zeros_like(batch[name]) for name in masks}
    value, gradient = jax.value_and_grad(total)(raw, empty)
    assert value == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_padding_is_not_counted(rng):
    raw, batch = small_batch(rng)
    padded = batch | {"valid": jnp.array([1.0, 0.0])}
    first = lambda tree: {k: v[:1] for k, v in tree.items()}  # noqa: E731
    found = losses.lixel_losses(raw, padded, FACES)
    alone = losses.lixel_losses(first(raw), first(batch), FACES)
    for name in losses.LIXEL:
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-6)


def test_normals_and_edges_by_hand():
    """A right angle in the plane, lifted at one corner."""
    target = jnp.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    lifted = target.at[0, 1, 2].set(1.0)
    face = jnp.array([[0, 1, 2]])
    found = losses.normal_errors(lifted, target, face)
    np.testing.assert_allclose(found, [[0.5**0.5, 0, 3**-0.5]], atol=1e-6)
    found = losses.edge_errors(lifted, target, face)
    np.testing.assert_allclose(found, [[2**0.5 - 1, 0, 3**0.5 - 2**0.5]], atol=1e-6)
    with pytest.raises(ValueError, match="differ"):
        losses.edge_errors(lifted[:, :2], target, face)
