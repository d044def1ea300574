"""Parts and texture coordinates of the open body, and DensePose's file for SMPL."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from hmr_jax.body import surface as surface_module
from hmr_jax.body.model import BodyModel
from hmr_jax.body.open_assets import load_open_body, load_open_hand
from hmr_jax.body.parts import coarse_parts
from hmr_jax.body.surface import open_surface, read_uv_processed, surface_of
from tests.conftest import tiny_body_arrays

MIRRORED = {3: 4, 5: 6, 7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22}
MIRRORED |= {1: 1, 2: 2, 23: 24}
# From the part's meaning alone: right (-1), left (1) or neither (0); front or back.
SIDE = {p: -1 for p in (3, 6, 7, 9, 11, 13, 16, 18, 20, 22, 23)}
SIDE |= {p: 1 for p in (4, 5, 8, 10, 12, 14, 15, 17, 19, 21, 24)}
FRONT_AND_BACK = [(2, 1), (9, 7), (10, 8), (13, 11), (14, 12)]
FRONT_AND_BACK += [(15, 17), (16, 18), (19, 21), (20, 22)]
NUM_SURFACE = 7829


@pytest.fixture(scope="module")
def centres(open_body):
    return np.asarray(open_body.template_m)[np.asarray(open_body.faces)].mean(1)


@pytest.fixture(scope="module")
def smpl_sized():
    """A random body of SMPL's size: 6,890 vertices."""
    arrays = tiny_body_arrays(3, 64)
    regressor = np.zeros((24, 6890))
    regressor[np.arange(24), np.arange(24)] = 1.0
    more = np.random.default_rng(0).integers(0, 64, 6890)
    return BodyModel.create(
        template_m=arrays["v_template"][more],
        shape_dirs_m=arrays["shapedirs"][more],
        joint_regressor=regressor,
        skin_weights=arrays["weights"][more],
        faces=np.random.default_rng(1).integers(0, 6890, (13776, 3)),
        parents=load_open_body().parents,
        name="smpl",
    )


def uv_fields():
    """DensePose's file in its layout: parts of strips of vertices, counted from 1."""
    rng = np.random.default_rng(5)
    owner = np.sort(np.concatenate([np.arange(1, 25), rng.integers(1, 25, 7805)]))
    part = np.sort(np.concatenate([np.arange(1, 25), rng.integers(1, 25, 13750)]))
    faces = np.zeros((13774, 3), np.int64)
    for p in range(1, 25):
        mine, rows = np.flatnonzero(owner == p), part == p
        faces[rows] = rng.choice(mine, (rows.sum(), 3))
    return {
        "All_FaceIndices": part[:, None].astype(np.uint8),
        "All_Faces": (faces + 1).astype(np.uint16),
        "All_vertices": rng.integers(1, 6891, (1, NUM_SURFACE)).astype(np.uint16),
        "All_U_norm": rng.uniform(size=(NUM_SURFACE, 1)),
        "All_V_norm": rng.uniform(size=(NUM_SURFACE, 1)),
        "All_U": rng.uniform(size=(NUM_SURFACE, 1)),  # also there, and not read
    }


def written(tmp_path, **changes):
    path = tmp_path / "UV_Processed.mat"
    fields = {k: v for k, v in (uv_fields() | changes).items() if v is not None}
    scipy.io.savemat(path, fields)
    return path


def test_every_face_has_a_part_and_every_part_faces(surface, open_body):
    part = np.asarray(surface.part)
    assert part.shape == (open_body.faces.shape[0],)
    assert set(part) == set(range(1, 25))
    assert np.bincount(part)[1:].min() > 100
    assert set(np.asarray(coarse_parts(surface.part))) == set(range(1, 15))


def test_the_faces_are_the_bodys_and_share_its_vertices(surface, open_body):
    np.testing.assert_array_equal(surface.vertex[surface.faces], open_body.faces)
    assert len(np.unique(surface.vertex)) == open_body.num_vertices
    uv = np.asarray(surface.uv)
    assert (uv >= 0).all() and (uv <= 1).all()
    corners = uv[np.asarray(surface.faces)]
    (ax, ay), (bx, by) = ((corners[:, k] - corners[:, 0]).T for k in (1, 2))
    # With v up, faces seen from outside keep their orientation on the map.
    assert (ax * by - ay * bx > 0).mean() > 0.99


def test_parts_lie_on_their_side(surface, centres):
    part = np.asarray(surface.part)
    for p, side in SIDE.items():
        x = centres[part == p, 0]
        assert (side * x > -0.02).all() and (side * x).mean() > 0.02, p


def test_left_and_right_are_as_large(surface, centres, open_body):
    part, places = np.asarray(surface.part), np.asarray(open_body.template_m)
    a, b, c = (places[np.asarray(open_body.faces)[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2
    for p, q in MIRRORED.items():
        first, second = area[part == p].sum(), area[part == q].sum()
        assert p == q or abs(first - second) < 0.05 * first, (p, q)
        if p != q:
            means = [np.average(centres[part == k], 0, area[part == k]) for k in (p, q)]
            # The open body's hands differ a little.
            np.testing.assert_allclose(means[0] * [-1, 1, 1], means[1], atol=0.01)


def test_fronts_are_before_backs(surface, centres):
    part = np.asarray(surface.part)
    for front, back in FRONT_AND_BACK:
        gap = centres[part == front, 2].mean() - centres[part == back, 2].mean()
        assert gap > 0.02, (front, back)


def test_limbs_come_in_their_order(surface, centres):
    part = np.asarray(surface.part)
    height = {p: centres[part == p, 1].mean() for p in range(1, 25)}
    reach = {p: np.abs(centres[part == p, 0]).mean() for p in range(1, 25)}
    assert height[23] > height[1] > height[7] > height[11] > height[6]
    assert height[24] > height[2] > height[10] > height[14] > height[5]
    assert reach[4] > reach[19] > reach[15] > reach[2]
    assert reach[3] > reach[22] > reach[18] > reach[1]


def test_chosen_by_body_and_path(open_body, smpl_sized, tmp_path):
    np.testing.assert_array_equal(
        surface_of(open_body, None).part, surface_of(open_body, "").part
    )
    with pytest.raises(ValueError, match=r"UV_Processed\.mat") as caught:
        surface_of(smpl_sized, None)
    assert "config.data.uv_path" in str(caught.value) and "6890" in str(caught.value)
    with pytest.raises(ValueError, match="6799"):
        surface_of(open_body, written(tmp_path))


def test_only_a_body_with_a_map_and_24_joints_is_open(smpl_sized, open_body):
    with pytest.raises(ValueError, match="16 joints"):
        open_surface(load_open_hand())
    with pytest.raises(ValueError, match="uv: expected texture coordinates"):
        open_surface(smpl_sized)
    shared = dataclasses.replace(open_body, face_uv=jnp.zeros_like(open_body.face_uv))
    with pytest.raises(ValueError, match="face_uv: expected one vertex"):
        open_surface(shared)


def test_densepose_file(smpl_sized, tmp_path):
    fields = uv_fields()
    surface = read_uv_processed(written(tmp_path), smpl_sized)
    assert all(x.dtype in (jnp.int32, jnp.float32) for x in surface)
    np.testing.assert_array_equal(surface.part, fields["All_FaceIndices"][:, 0])
    np.testing.assert_array_equal(surface.faces, fields["All_Faces"].astype(int) - 1)
    np.testing.assert_array_equal(
        surface.vertex, fields["All_vertices"][0].astype(int) - 1
    )
    # Texels: each part's square is 200 x 200 of the 800 columns and 1200 rows.
    seen = set()
    for face in range(0, 13774, 500):
        part, vertex = int(surface.part[face]), int(surface.faces[face, 1])
        column, row = divmod(part - 1, 6)
        across = (column + fields["All_U_norm"][vertex, 0]) * 200
        down = (row + 1 - fields["All_V_norm"][vertex, 0]) * 200
        found = np.asarray(surface.uv)[vertex] * [800, 1200]
        np.testing.assert_allclose(found, [across, 1200 - down], atol=1e-3)
        seen.add(part)
    assert len(seen) > 10


BAD = {
    "All_Faces": (np.ones((13774, 4)), r"expected shape \(F, 3\)"),
    "All_FaceIndices": (np.ones((9, 1)), "expected 13774 values, got 9"),
    "All_vertices": (
        np.full((1, NUM_SURFACE), 6891),
        r"expected values in 1\.\.6890, got 6891",
    ),
    "All_U_norm": (np.full((NUM_SURFACE, 1), 1.5), r"expected values in 0\.0\.\.1\.0"),
    "All_V_norm": (np.ones((9, 1)), f"expected {NUM_SURFACE} values, got 9"),
}


@pytest.mark.parametrize("field", sorted(BAD))
def test_a_bad_field_is_named(smpl_sized, tmp_path, field):
    value, message = BAD[field]
    with pytest.raises(ValueError, match=rf"Processed\.mat: {field}: {message}"):
        read_uv_processed(written(tmp_path, **{field: value}), smpl_sized)
    with pytest.raises(ValueError, match=rf"mat: missing {field}; it has"):
        read_uv_processed(written(tmp_path, **{field: None}), smpl_sized)


def test_other_wrong_values_are_named(smpl_sized, tmp_path):
    fields = uv_fields()
    part = fields["All_FaceIndices"].copy()
    part[0] = 25
    faces = fields["All_Faces"].copy()
    faces[3, 1] = NUM_SURFACE + 1
    mixed = fields["All_Faces"].copy()
    mixed[0, 0] = mixed[-1, 0]
    places = fields["All_V_norm"].copy()
    places[7] = np.nan
    cases = [
        ("All_FaceIndices", part, r"expected values in 1\.\.24, got 1\.\.25"),
        ("All_Faces", faces, r"expected values in 1\.\.7829"),
        ("All_Faces", mixed, "All_FaceIndices: expected each vertex"),
        ("All_Faces", fields["All_Faces"] + 0.5, "expected whole numbers"),
        ("All_V_norm", places, r"expected values in 0\.0\.\.1\.0, got nan"),
        ("All_U_norm", np.array(["a"], object), "All_U_norm: expected numbers"),
    ]
    for field, value, message in cases:
        with pytest.raises(ValueError, match=message):
            read_uv_processed(written(tmp_path, **{field: value}), smpl_sized)


def test_what_is_no_matlab_file_is_named(smpl_sized, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.mat"):
        read_uv_processed(tmp_path / "nothing.mat", smpl_sized)
    for content in (b"", b"hello", b"\x00" * 400, b"MATLAB 5.0 MAT-file" * 30):
        path = tmp_path / "text.mat"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"text\.mat: expected a MATLAB file"):
            read_uv_processed(path, smpl_sized)


def test_the_atlas_fills_columns_first():
    part = np.array([1, 6, 7, 24])
    uv = surface_module.atlas_uv(part, np.zeros(4), np.ones(4))
    want = [[0, 1], [0, 1 / 6], [0.25, 1], [0.75, 1 / 6]]
    np.testing.assert_allclose(uv, want, atol=1e-7)
