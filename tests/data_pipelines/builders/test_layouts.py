"""One name a dataset, its layouts, and the names that both had before."""

import pytest

from data_pipelines.builders import catalog, layouts
from data_pipelines.builders.int_db import IntDatabase
from data_pipelines.builders.pw3d import Pw3d
from hmr_jax.errors import UserError

LAYOUTS = [(n, k) for n, found in layouts.DATASETS.items() for k in found]
BEFORE = {
    "agora": {},
    "freihand": {"layout": "i2l"},
    "h36m_eccv18": {},
    "h36m_fang": {"every_val": 3},
    "h36m_hybrik": {},
    "h36m_i2l": {},
    "int_db": {"dataset": "coco2014-all"},
    "mpi_inf_3dhp": {},
    "mpi_inf_3dhp_hybrik": {},
    "pw3d": {"boxes": "smooth"},
    "pw3d_hierprob": {"layout": "sequences", "body": "b"},
    "pw3d_hybrik": {},
    "pw3d_i2l": {},
    "vibe_db": {"dataset": "3dpw"},
}
"""Names with options that opened a dataset before."""


@pytest.mark.parametrize("name", BEFORE)
def test_an_old_name_opens_the_same_dataset(name, tmp_path):
    source = catalog.open_named(name, str(tmp_path), BEFORE[name])
    folder = {"int_db": "int_db_coco2014_all", "vibe_db": "vibe_db_3dpw"}
    assert source.name == folder.get(name, name)
    for option, value in BEFORE[name].items():
        config = source.config()[option]
        assert config == (bool(value) if option == "body" else value)
    choice = layouts.choose(name, BEFORE[name])
    now = {"layout": choice.layout, **choice.options}
    again = catalog.open_named(choice.dataset, str(tmp_path), now)
    assert type(again) is type(source) and again.config() == source.config()
    assert again.name == source.name


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_folders_of_records_lead_back_to_their_dataset(name, layout, tmp_path):
    needed = {"human_data": {"train": "a"}}.get(name, {})
    needed |= {"hierprob_sequences": {"body": "b"}}.get(layout, {})
    given = {"layout": layout, **needed}
    source = catalog.open_named(name, str(tmp_path), given)
    options = {k: v for k, v in source.arguments.items() if k == "layout"}
    found = layouts.choose(source.name, options)
    assert (found.dataset, found.layout) == (name, layout)


def test_old_and_new_names_do_not_collide():
    assert not layouts.ALIASES.keys() & layouts.DATASETS.keys()
    for dataset, layout in layouts.ALIASES.values():
        assert layout in layouts.DATASETS[dataset]


def test_options_are_typed_with_the_layout():
    words = ["layout=int_db", "rename_3dhp=true"]
    options = catalog.parse_options("mpi_inf_3dhp", words)
    assert options == {"layout": "int_db", "rename_3dhp": True}
    source = catalog.open_named("mpi_inf_3dhp", "x", options)
    assert isinstance(source, IntDatabase) and source.dataset == "mpii3d"
    assert catalog.parse_options("int_db", ["dataset=h36m"]) == {"dataset": "h36m"}
    assert catalog.parse_options("pw3d", ["boxes=smooth"]) == {"boxes": "smooth"}
    assert catalog.load(layouts.choose("pw3d")) is Pw3d


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("h36m", {}, "layout: expected one of eccv18, fang, hybrik, i2l, int_db"),
        ("pw3d", {"layout": "x"}, "layout: expected one of original, hierprob, "),
        ("pw3d_i2l", {"layout": "hybrik"}, "expected one of i2l, got 'hybrik'"),
        ("int_db", {"dataset": "x"}, "expected one of 3dpw, coco2014_all, h36m"),
        ("pw4d", {}, "dataset: expected one of agora, "),
    ],
)
def test_wrong_choices_are_named(name, options, message):
    with pytest.raises(UserError, match=message):
        layouts.choose(name, options)
