"""Texture banks: the published layout, outfits on the open body's map, drawing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.render.shade import sample_texture
from hmr_jax.synthetic import textures
from hmr_jax.synthetic.clothing import Cloth, dress, figure, sample_clothes
from hmr_jax.synthetic.textures import (
    TextureBank,
    procedural_textures,
    read_textures,
    sample_texture_indices,
)

SIZE_PX = 128


@pytest.fixture(scope="module")
def bank(open_body, surface):
    return procedural_textures(open_body, surface, 3, SIZE_PX, seed=4)


def stored(path, **arrays):
    np.savez(path, **arrays)
    return path


def flat(count, value):
    """Textures of one colour each: value, value + 1, ..."""
    shades = np.arange(value, value + count, dtype=np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, 1200, 800, 3))


def test_the_published_layout_is_read(tmp_path):
    path = stored(tmp_path / "smpl_textures.npz", grey=flat(2, 10), nongrey=flat(5, 50))
    bank = read_textures(path)
    assert bank.images.shape == (7, 1200, 800, 3) and bank.images.dtype == jnp.uint8
    assert int(bank.num_grey) == 2
    shades = [10, 11, 50, 51, 52, 53, 54]
    np.testing.assert_array_equal(bank.images[:, 3, 5, 1], shades)
    few = read_textures(path, limit=3)
    assert int(few.num_grey) == 2
    np.testing.assert_array_equal(few.images[:, 3, 5, 1], [10, 11, 50, 52, 54])


def test_bad_textures_are_named(tmp_path):
    small = np.zeros((2, 256, 256, 3), np.uint8)
    cases = [
        ({"grey": flat(1, 0)}, r"t\.npz: nongrey: missing"),
        ({"grey": small, "nongrey": flat(1, 0)}, r"grey: texture of the wrong size"),
        ({"grey": flat(1, 0) / 2, "nongrey": flat(1, 0)}, "grey: expected uint8, got"),
        ({"grey": flat(0, 0), "nongrey": flat(0, 0)}, "expected textures, got none"),
    ]
    for arrays, message in cases:
        with pytest.raises(ValueError, match=message):
            read_textures(stored(tmp_path / "t.npz", **arrays))
    with pytest.raises(ValueError, match=r"1200, 800, 3\), got \(2, 256, 256, 3\)"):
        read_textures(stored(tmp_path / "t.npz", grey=small, nongrey=small))
    with pytest.raises(ValueError, match="limit: expected 0 or more"):
        read_textures(tmp_path / "t.npz", limit=-1)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        read_textures(tmp_path / "none.npz")


def test_what_is_no_npz_is_named(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "text.npz").write_text("PK\x03\x04 hello")
    (tmp_path / "words.npz").write_text("hello")
    (tmp_path / "empty.npz").write_text("")
    for name in ("one.npz", "text.npz", "words.npz", "empty.npz"):
        with pytest.raises(ValueError, match=rf"{name}: expected an \.npz archive"):
            read_textures(tmp_path / name)


def test_a_damaged_array_is_named(tmp_path):
    path = stored(tmp_path / "t.npz", grey=flat(1, 0), nongrey=flat(1, 0))
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.npz: field 'grey': cannot be read"):
        read_textures(path)
    stored(path, grey=np.array([None, 1], object), nongrey=flat(1, 0))
    with pytest.raises(ValueError, match=r"t\.npz: grey: expected uint8, got object"):
        read_textures(path)


def test_a_shirt_is_on_the_chest(open_body, surface, monkeypatch):
    red, blue = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.1, 0.8])

    def plain(rgb):
        waves, phases = np.zeros((2, 3)), np.full(2, np.pi / 2)
        rows = (np.tile(rgb, (2, 1)), waves, phases)
        return Cloth(*(x.astype(np.float32) for x in rows))

    def outfit(rng, suit_share):
        clothes = sample_clothes(rng, suit_share)
        whole = {"sleeve": 1.9, "hem": 0.0, "leg": 2.0, "mottle": 0.0, "shoe": -2.0}
        whole = {key: np.float32(value) for key, value in whole.items()}
        return clothes._replace(shirt=plain(red), trousers=plain(blue), **whole)

    monkeypatch.setattr(textures, "sample_clothes", outfit)
    bank = procedural_textures(open_body, surface, 1, 256)
    joints = np.asarray(figure(open_body).joints_m)
    places = np.asarray(open_body.template_m)[np.asarray(surface.vertex)]

    def colour_at(place):
        nearest = np.argmin(np.linalg.norm(places - place, axis=-1))
        return sample_texture(bank.images[0], surface.uv[nearest], ends=True)

    for depth in (0.2, -0.2):  # chest and back
        np.testing.assert_allclose(
            colour_at(joints[9] + [0.05, 0, depth]), red, atol=0.01
        )
    for knee in joints[[4, 5]]:
        np.testing.assert_allclose(colour_at(knee), blue, atol=0.01)
    for elbow in joints[[18, 19]]:
        np.testing.assert_allclose(colour_at(elbow), red, atol=0.01)
    for hand in joints[[22, 23]]:
        gap = np.abs(np.asarray(colour_at(hand)) - red).max()
        assert gap > 0.05


def test_the_map_agrees_with_colours_of_vertices(open_body, surface, bank):
    """Vertices dressed directly, also on the seams, where the islands end."""
    worn = figure(open_body)
    index = np.asarray(surface.vertex)
    on_seam = np.bincount(index, minlength=open_body.num_vertices)[index] > 1
    assert on_seam.sum() > 500
    for number in range(3):
        outfit = sample_clothes(np.random.default_rng((4, number)))
        by_vertex = np.asarray(dress(worn, jax.tree.map(jnp.asarray, outfit)))[index]
        found = np.asarray(sample_texture(bank.images[number], surface.uv, ends=True))
        close = np.abs(found - by_vertex).max(-1) < 0.1
        # A texel is 1 cm, so patterns and borders of clothes are blurred.
        assert close.mean() > 0.8
        assert close[on_seam].mean() > 0.7


def test_no_dark_lines_at_the_seams(open_body, surface):
    """A place of the rest body read through the map, at seams and far from them."""
    texels = textures.texel_figure(open_body, surface, 256)
    image = texels.places_m.reshape(256, 256, 3)
    found = np.asarray(sample_texture(image, surface.uv, ends=True))
    index = np.asarray(surface.vertex)
    gap = np.linalg.norm(found - np.asarray(open_body.template_m)[index], axis=-1)
    on_seam = np.bincount(index, minlength=open_body.num_vertices)[index] > 1
    # Black texels would pull places to the middle of the body, up to 0.9 m away.
    assert gap[on_seam].max() < 0.03 and gap[~on_seam].max() < 0.01


def test_outfits_depend_on_seed_and_number_alone(open_body, surface, bank):
    again = procedural_textures(open_body, surface, 2, SIZE_PX, seed=4)
    np.testing.assert_array_equal(again.images, bank.images[:2])
    other = procedural_textures(open_body, surface, 2, SIZE_PX, seed=5)
    assert (np.asarray(other.images) != np.asarray(again.images)).mean() > 0.5
    assert int(bank.num_grey) == 0 and bank.images.dtype == jnp.uint8
    suits = procedural_textures(open_body, surface, 2, SIZE_PX, seed=4, suit_share=1.0)
    gap = np.abs(np.asarray(suits.images[0], int) - np.asarray(suits.images[1], int))
    assert np.median(gap) < 30  # the same suit, mottled


def test_a_bank_of_nothing_is_an_error(open_body, surface):
    with pytest.raises(ValueError, match="at least 1 texture"):
        procedural_textures(open_body, surface, 0)
    outside = surface._replace(faces=jnp.full_like(surface.faces, -1))
    with pytest.raises(ValueError, match="expected faces on the texture map"):
        procedural_textures(open_body, outside, 1, 16)


def test_holes_are_filled_from_nearby():
    inside = np.zeros((40, 30), bool)
    inside[5, 5] = inside[30, 20] = inside[31, 20] = True
    found = textures._nearest_inside(inside)
    row, column = np.divmod(found, 30)
    assert inside[row, column].all()
    own_row, own_column = np.mgrid[:40, :30].reshape(2, -1)
    distance = np.hypot(row - own_row, column - own_column)
    seeds = np.argwhere(inside)
    best = np.min(
        np.hypot(own_row[:, None] - seeds[:, 0], own_column[:, None] - seeds[:, 1]), 1
    )
    # Octagons come within a tenth of circles.
    assert (distance <= best * 1.15 + 1.0).all()
    assert (distance[inside.reshape(-1)] == 0).all()


def counted(num_grey, total, count=20000):
    bank = TextureBank(jnp.zeros((total, 1, 1, 3), jnp.uint8), jnp.asarray(num_grey))
    draw = jax.jit(sample_texture_indices, static_argnames="count")
    drawn = draw(jax.random.key(2), bank, count=count)
    assert drawn.shape == (count,) and drawn.dtype == jnp.int32
    return np.bincount(np.asarray(drawn), minlength=total) / count


def test_grey_textures_are_rare():
    shares = counted(3, 11)
    assert shares.size == 11
    error = np.sqrt(0.05 * 0.95 / 20000)
    assert abs(shares[:3].sum() - 0.05) < 4 * error
    np.testing.assert_allclose(shares[:3], 0.05 / 3, rtol=0.2)
    np.testing.assert_allclose(shares[3:], 0.95 / 8, rtol=0.1)


def test_one_kind_alone_is_drawn_uniformly():
    for num_grey in (0, 4):
        np.testing.assert_allclose(counted(num_grey, 4), 0.25, rtol=0.1)
