"""Clothes land on the right parts of the open body."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.open_assets import load_open_hand
from hmr_jax.synthetic import clothing


def plain(rgb):
    return clothing.Cloth(np.tile(rgb, (2, 1)), np.zeros((2, 3)), np.full(2, np.pi / 2))


@pytest.fixture(scope="module")
def figure(open_body):
    return clothing.figure(open_body)


def outfit(**changes):
    colours = {
        "shirt": plain([0.9, 0.0, 0.0]),
        "trousers": plain([0.0, 0.0, 0.9]),
        "shoe_rgb": [0.0, 0.9, 0.0],
        "skin_rgb": [0.9, 0.9, 0.9],
        "hair_rgb": [0.0, 0.0, 0.0],
    }
    extents = {"sleeve": 0.5, "hem": 0.0, "leg": 1.9, "collar": 0.0, "shoe": 0.1}
    values = {**colours, **extents, "hairline": 0.08, "mottle": 0.0}
    values |= {"suit": 0.0, **changes}
    clothes = clothing.Clothes(**values)
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32),
        clothes,
        is_leaf=lambda x: isinstance(x, list),
    )


def part_is(rgb, colour):
    return np.all(np.abs(np.asarray(rgb) - colour) < 0.02, axis=-1)


def test_every_garment_is_where_it_belongs(figure):
    rgb = clothing.dress(figure, outfit())
    part = np.asarray(figure.part)
    x, y = np.abs(np.asarray(figure.places_m)[:, 0]), np.asarray(figure.places_m)[:, 1]
    hip, knee, ankle = np.asarray(figure.joints_m)[[1, 4, 7], 1]
    legs = np.isin(part, (4, 5)) & (y > (knee + ankle) / 2)
    assert np.all(part_is(rgb, [0.9, 0.9, 0.9])[np.isin(part, (20, 21, 22, 23))])
    assert np.all(part_is(rgb, [0.0, 0.9, 0.0])[np.isin(part, (10, 11))])
    assert np.all(part_is(rgb, [0.9, 0.0, 0.0])[np.isin(part, (3, 6)) & (y > hip)])
    assert np.all(part_is(rgb, [0.0, 0.0, 0.9])[legs])
    head = part == 15
    hair = part_is(rgb, [0.0, 0.0, 0.0])
    assert 0.05 < hair[head].mean() < 0.9 and not np.any(hair & ~head)
    elbow = np.asarray(figure.joints_m)[18, 0]
    assert not np.any(part_is(rgb, [0.9, 0.0, 0.0])[x > elbow])


def test_extents_move_the_borders(figure):
    def area(colour, **changes):
        return part_is(clothing.dress(figure, outfit(**changes)), colour).sum()

    red, blue = [0.9, 0.0, 0.0], [0.0, 0.0, 0.9]
    assert area(red, sleeve=2.0) > area(red, sleeve=0.5) > area(red, sleeve=0.0)
    assert area(blue, leg=1.9) > area(blue, leg=1.0) > area(blue, leg=0.3)
    assert area(red, hem=0.8) > area(red, hem=-0.2)
    assert area([0.0, 0.0, 0.0], hairline=1.0) == 0


def test_patterns_use_both_colours(figure):
    waves = np.zeros((2, 3))
    waves[0, 1] = 2 * np.pi / 0.1
    cloth = clothing.Cloth(
        np.array([[0.9, 0, 0], [0, 0.9, 0.9]]), waves, np.full(2, np.pi / 2)
    )
    rgb = clothing.dress(figure, outfit(shirt=cloth))
    assert part_is(rgb, [0.9, 0.0, 0.0]).sum() > 100
    assert part_is(rgb, [0.0, 0.9, 0.9]).sum() > 100


def test_random_outfits_give_colours_in_range(figure):
    dress = jax.jit(clothing.dress)
    for seed in range(8):
        clothes = clothing.sample_clothes(np.random.default_rng(seed))
        assert {x.dtype for x in jax.tree.leaves(clothes)} == {np.dtype(np.float32)}
        rgb = np.asarray(dress(figure, clothes))
        assert np.all((rgb >= 0) & (rgb <= 1)) and rgb.std() > 0.01


def test_only_the_24_joint_tree_is_dressed():
    with pytest.raises(ValueError, match="16 joints"):
        clothing.figure(load_open_hand())


def test_the_suit_colours_each_part_and_tells_left_from_right(figure):
    colours = np.asarray(clothing.dress(figure, outfit(suit=1.0)))
    part = np.asarray(figure.part)
    palette = clothing.suit_rgb()
    np.testing.assert_allclose(colours, palette[part], atol=1e-6)
    pairs = [(1, 2), (4, 5), (7, 8), (16, 17), (18, 19), (20, 21)]
    gaps = [np.abs(palette[left] - palette[right]).max() for left, right in pairs]
    assert min(gaps) > 0.2
