"""The datasets that can be built, by name."""

import importlib

from data_pipelines.builders.raw import RawSource
from hmr_jax.errors import UserError

_PLACE = "data_pipelines.builders"
CATALOG = {
    "agora": "agora:Agora",
    "coco": "coco:Coco",
    "flic_full": "flic_full:FlicFull",
    "freihand": "freihand:FreiHand",
    "h36m_eccv18": "h36m_eccv18:H36mEccv18",
    "h36m_fang": "h36m_fang:H36mFang",
    "h36m_hybrik": "h36m_hybrik:H36mHybrik",
    "h36m_i2l": "h36m_i2l:H36mI2l",
    "human_data": "human_data:HumanData",
    "insta_variety": "insta_variety:InstaVariety",
    "int_db": "int_db:IntDatabase",
    "lsp": "lsp:Lsp",
    "lsp_extended": "lsp:LspExtended",
    "mpi_inf_3dhp": "mpi_inf_3dhp:MpiInf3dhp",
    "mpi_inf_3dhp_hybrik": "mpi_inf_3dhp_hybrik:MpiInf3dhpHybrik",
    "mpii": "mpii:Mpii",
    "muco_3dhp": "muco_3dhp:Muco3dhp",
    "occlusion_person": "occlusion_person:OcclusionPerson",
    "penn_action": "penn_action:PennAction",
    "posetrack": "posetrack:PoseTrack",
    "pw3d": "pw3d:Pw3d",
    "pw3d_hierprob": "pw3d_hierprob:Pw3dHierprob",
    "pw3d_hybrik": "pw3d_hybrik:Pw3dHybrik",
    "pw3d_i2l": "pw3d_i2l:Pw3dI2l",
    "ssp_3d": "ssp_3d:Ssp3d",
    "surreal": "surreal:Surreal",
    "vibe_db": "vibe_db:VibeDatabase",
}


def load(name: str) -> type[RawSource]:
    """The class of a dataset.

    Args:
        name: key of ``CATALOG``.

    Returns:
        Made with the raw folder and the dataset's options.

    Raises:
        UserError: no such dataset.
    """
    if name not in CATALOG:
        raise UserError(f"dataset: expected one of {', '.join(CATALOG)}, got {name!r}")
    module, found = CATALOG[name].split(":")
    return getattr(importlib.import_module(f"{_PLACE}.{module}"), found)
