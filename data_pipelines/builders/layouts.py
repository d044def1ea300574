"""Every dataset by its name, and the layouts in which its labels are published."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hmr_jax.errors import UserError

ORIGINAL = "original"
"""The files of a dataset's owners; what is read where no layout is asked for."""


class Layout(NamedTuple):
    """One way in which the labels of a dataset are published.

    Attributes:
        place: module of ``data_pipelines.builders`` and class that reads it.
        given: arguments of the class that the layout settles.
    """

    place: str
    given: Mapping[str, Any] = {}


def _int_db(dataset: str) -> Layout:
    return Layout("int_db:IntDatabase", {"dataset": dataset})


def _vibe_db(dataset: str) -> Layout:
    return Layout("vibe_db:VibeDatabase", {"dataset": dataset})


def _hierprob(layout: str) -> Layout:
    return Layout("pw3d_hierprob:Pw3dHierprob", {"layout": layout})


DATASETS: dict[str, dict[str, Layout]] = {
    "agora": {ORIGINAL: Layout("agora:Agora")},
    "coco": {ORIGINAL: Layout("coco:Coco"), "int_db": _int_db("coco2014-all")},
    "flic_full": {ORIGINAL: Layout("flic_full:FlicFull")},
    "freihand": {
        ORIGINAL: Layout("freihand:FreiHand", {"layout": "published"}),
        "i2l": Layout("freihand:FreiHand", {"layout": "i2l"}),
    },
    "h36m": {
        "eccv18": Layout("h36m_eccv18:H36mEccv18"),
        "fang": Layout("h36m_fang:H36mFang"),
        "hybrik": Layout("h36m_hybrik:H36mHybrik"),
        "i2l": Layout("h36m_i2l:H36mI2l"),
        "int_db": _int_db("h36m"),
    },
    "human_data": {ORIGINAL: Layout("human_data:HumanData")},
    "insta_variety": {
        ORIGINAL: Layout("insta_variety:InstaVariety"),
        "int_db": _int_db("insta"),
    },
    "lsp": {ORIGINAL: Layout("lsp:Lsp")},
    "lsp_extended": {ORIGINAL: Layout("lsp:LspExtended"), "int_db": _int_db("lspet")},
    "mpi_inf_3dhp": {
        ORIGINAL: Layout("mpi_inf_3dhp:MpiInf3dhp"),
        "hybrik": Layout("mpi_inf_3dhp_hybrik:MpiInf3dhpHybrik"),
        "int_db": _int_db("mpii3d"),
        "vibe_db": _vibe_db("mpii3d"),
    },
    "mpii": {ORIGINAL: Layout("mpii:Mpii"), "int_db": _int_db("mpii")},
    "muco_3dhp": {ORIGINAL: Layout("muco_3dhp:Muco3dhp")},
    "occlusion_person": {ORIGINAL: Layout("occlusion_person:OcclusionPerson")},
    "penn_action": {
        ORIGINAL: Layout("penn_action:PennAction"),
        "int_db": _int_db("pennaction"),
    },
    "posetrack": {
        ORIGINAL: Layout("posetrack:PoseTrack"),
        "int_db": _int_db("posetrack"),
    },
    "pw3d": {
        ORIGINAL: Layout("pw3d:Pw3d"),
        "hierprob": _hierprob("prepared"),
        "hierprob_sequences": _hierprob("sequences"),
        "hybrik": Layout("pw3d_hybrik:Pw3dHybrik"),
        "i2l": Layout("pw3d_i2l:Pw3dI2l"),
        "int_db": _int_db("3dpw"),
        "vibe_db": _vibe_db("3dpw"),
    },
    "ssp_3d": {ORIGINAL: Layout("ssp_3d:Ssp3d")},
    "surreal": {ORIGINAL: Layout("surreal:Surreal")},
}
ALIASES: dict[str, tuple[str, str]] = {
    "freihand_published": ("freihand", ORIGINAL),
    "h36m_eccv18": ("h36m", "eccv18"),
    "h36m_fang": ("h36m", "fang"),
    "h36m_hybrik": ("h36m", "hybrik"),
    "h36m_i2l": ("h36m", "i2l"),
    "int_db": ("pw3d", "int_db"),
    "int_db_3dpw": ("pw3d", "int_db"),
    "int_db_coco2014_all": ("coco", "int_db"),
    "int_db_h36m": ("h36m", "int_db"),
    "int_db_insta": ("insta_variety", "int_db"),
    "int_db_lspet": ("lsp_extended", "int_db"),
    "int_db_mpii": ("mpii", "int_db"),
    "int_db_mpii3d": ("mpi_inf_3dhp", "int_db"),
    "int_db_pennaction": ("penn_action", "int_db"),
    "int_db_posetrack": ("posetrack", "int_db"),
    "mpi_inf_3dhp_hybrik": ("mpi_inf_3dhp", "hybrik"),
    "pw3d_hierprob": ("pw3d", "hierprob"),
    "pw3d_hierprob_prepared": ("pw3d", "hierprob"),
    "pw3d_hierprob_sequences": ("pw3d", "hierprob_sequences"),
    "pw3d_hybrik": ("pw3d", "hybrik"),
    "pw3d_i2l": ("pw3d", "i2l"),
    "vibe_db": ("mpi_inf_3dhp", "vibe_db"),
    "vibe_db_3dpw": ("pw3d", "vibe_db"),
    "vibe_db_mpii3d": ("mpi_inf_3dhp", "vibe_db"),
}
"""Old name -> dataset and layout. Where an option chose, ``_`` stands before it.

Folders of records carry these names, today's as well as those of earlier versions."""
_CHOOSING = ("layout", "dataset")
"""Options that chose among the layouts of an old name."""


class Choice(NamedTuple):
    """A dataset in one of its layouts.

    Attributes:
        dataset: its name.
        layout: name of the layout.
        options: those that are left for its class.
    """

    dataset: str
    layout: str
    options: dict[str, Any]

    @property
    def words(self) -> str:
        """As ``data build`` takes it."""
        default = list(DATASETS[self.dataset])[0] == ORIGINAL == self.layout
        return self.dataset + ("" if default else f" --option=layout={self.layout}")


def is_known(name: str) -> bool:
    """Whether a dataset has or had this name."""
    return name in DATASETS or name in ALIASES


def choose(name: str, options: Mapping[str, Any] | None = None) -> Choice:
    """The dataset and layout of a name, today's or an old one.

    Args:
        name: of ``DATASETS`` or ``ALIASES``.
        options: with the ``layout``, or what chose it under an old name.

    Raises:
        UserError: no such dataset or layout, or one has to be chosen.
    """
    if not is_known(name):
        raise UserError(f"dataset: expected one of {', '.join(DATASETS)}, got {name!r}")
    rest = dict(options or {})
    for option in _CHOOSING:
        joined = f"{name}_{rest.get(option)}".replace("-", "_")
        if option in rest and joined in ALIASES:
            rest.pop(option)
            return Choice(*ALIASES[joined], rest)
    dataset, layout = ALIASES.get(name, (name, None))
    if "layout" in rest or layout is None:
        found = rest.pop("layout", ORIGINAL)
        if found not in DATASETS[dataset] or layout not in (None, found):
            names = layout or ", ".join(DATASETS[dataset])
            raise UserError(f"{name}: layout: expected one of {names}, got {found!r}")
        layout = found
    if name in ALIASES and "dataset" in rest:
        known = [old.removeprefix(f"{name}_") for old in ALIASES if f"{name}_" in old]
        raise UserError(
            f"{name}: dataset: expected one of {', '.join(known)}, "
            f"got {rest['dataset']!r}"
        )
    return Choice(dataset, layout, rest)


def old_names(choice: Choice) -> list[str]:
    """Names that a dataset in a layout had, and that its folders have."""
    return [old for old, now in ALIASES.items() if now == choice[:2]]
