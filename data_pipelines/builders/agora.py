"""AGORA: rendered crowds of scanned people, from its camera tables."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.boxes import box_of_points
from data_pipelines.builders.label_values import gender_of, numbers, with_validity
from data_pipelines.builders.mpi_inf_3dhp_files import fitted_camera
from data_pipelines.builders.pandas_frames import read_frame
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.builders.published_files import join
from data_pipelines.schema import FieldSpec, Record
from hmr_jax.errors import UserError
from hmr_jax.pictures.names import canonical

_SPLITS = ("train", "validation")
_BODY_JOINTS = {"smpl": (45, 24), "smplx": (127, 22)}
_COLUMNS = ("imgPath", "gender", "gt_joints_2d", "gt_joints_3d")
_OCCLUSION = FieldSpec(
    "occlusion_percent", "float32", (), doc="how much of the person is hidden"
)
_KID = FieldSpec("is_kid", "int64", (), doc="1 where the person is a child")


class Agora(PublishedDataset):
    """AGORA's tables ``*_withj2d.pkl``: joints of every person in every picture.

    The tables are pickles of pandas; they are read without it, and nothing in them is
    run. The pose and shape files of AGORA (``smpl_gt``, ``smplx_gt``) are pickles of
    PyTorch objects and are not read: these records have 2D and 3D joints and a camera
    and no body parameters. The camera is fitted to the joints of its picture.

    Args:
        raw: folder with ``camera_dataframe`` and the pictures.
        fit: body that the tables' joints are of: ``smpl`` (45 joints, of which the 24
            kinematic ones are kept) or ``smplx`` (127, of which the first 22 are
            SMPL's).
        tables: folder of the tables.
        images: folder of the pictures, ``{split}`` in it stands for the split; full
            size (``imgPath``) or 1280 x 720 (``imgPath`` with ``_1280x720``).
        joints_width_px: width of the picture that the tables' 2D joints belong to.
        valid_only: leave out people whom the tables call invalid.

    Source: specs/ikol.md, section 16 (converter); the published layout.
    """

    name = "agora"
    description = "AGORA: crowds of scanned people with 3D joints in the camera frame."
    citation = "Patel et al., AGORA: avatars in geography optimized, CVPR 2021"
    needs = (
        "camera_dataframe/{train,validation}_*_withj2d.pkl",
        "images/{train,validation}/*.png (full size or *_1280x720.png)",
    )
    origin = "agora.is.tue.mpg.de"
    licence = "AGORA: non-commercial research, by registration"
    traits = {"crop_padding": 1.25}
    spec = schema.RecordSpec("smpl_24", 24, extras=(_OCCLUSION, _KID))

    def __init__(
        self,
        raw: str,
        *,
        fit: str = "smpl",
        tables: str = "camera_dataframe",
        images: str = "images/{split}",
        joints_width_px: int = 3840,
        valid_only: bool = True,
    ):
        if fit not in _BODY_JOINTS:
            raise UserError(f"fit: expected one of {tuple(_BODY_JOINTS)}, got {fit!r}")
        super().__init__(raw)
        self._held: tuple[str, dict[str, Any]] = ("", {})

    def splits(self) -> Sequence[str]:
        """Those of train and validation whose tables are there."""
        found = tuple(s for s in _SPLITS if self._tables(s))
        if not found:
            place = self.path(self.arguments["tables"])
            raise self.wrong(place, "tables {train,validation}*_withj2d.pkl", "none")
        return found

    def _tables(self, split: str) -> list[str]:
        return self.glob(split, self.arguments["tables"], f"{split}*_withj2d.pkl")

    def _table(self, path: str) -> dict[str, Any]:
        """A table's columns; the last one is held."""
        if self._held[0] != path:
            columns = self.parse(
                path,
                "a pickled table of pandas",
                lambda data: read_frame(data, source=path),
            )
            self.require(path, columns, _COLUMNS)
            self._held = (path, columns)
        return self._held[1]

    def entries(self, split: str) -> Iterator[Entry]:
        """People by table, picture and place in the picture's lists."""
        for path in self._tables(split):
            table = self._table(path)
            for row, name in enumerate(table["imgPath"]):
                stem = canonical(str(name)).rpartition("/")[2].rpartition(".")[0]
                people = len(table["gt_joints_2d"][row])
                if not people:
                    self.drop(split, "picture without people")
                for person in range(people):
                    box = self._box(split, path, row, person, stem)
                    if box is not None:
                        data = (path, row, person, stem, box)
                        yield Entry(f"{stem}_{person:02d}", data)

    def _box(
        self, split: str, path: str, row: int, person: int, stem: str
    ) -> np.ndarray | None:
        valid = self._table(path).get("isValid")
        if (
            self.arguments["valid_only"]
            and valid is not None
            and not valid[row][person]
        ):
            self.drop(split, "invalid by the table")
            return None
        size = self.image_size(self._image(split, stem))
        pixels = self._joints(path, row, person, "gt_joints_2d") * self._scale(size[0])
        inside = np.all((pixels >= 0) & (pixels < size), axis=1)
        box = box_of_points(pixels[inside], 1.2) if inside.any() else None
        if box is None or box[2:].min() <= 0:
            self.drop(split, "no joint inside the image")
            return None
        return box

    def _scale(self, width: int) -> float:
        return width / self.arguments["joints_width_px"]

    def _image(self, split: str, stem: str) -> str:
        folder = self.path(self.arguments["images"].format(split=split))
        small = join(folder, f"{stem}_1280x720.png")
        return small if self.exists(small) else join(folder, f"{stem}.png")

    def _joints(self, path: str, row: int, person: int, name: str) -> np.ndarray:
        """SMPL's joints of a person, [24, C] or [22, C]."""
        number, kept = _BODY_JOINTS[self.arguments["fit"]]
        size = 2 if name == "gt_joints_2d" else 3
        value = self._table(path)[name][row][person]
        where = f"{path}: row {row}: {name}[{person}]"
        return numbers(self, where, value, (number, size))[:kept]

    def _camera(self, path: str, row: int, scale: float) -> np.ndarray | None:
        people = range(len(self._table(path)["gt_joints_2d"][row]))
        both = [
            np.concatenate([self._joints(path, row, p, name) for p in people])
            for name in ("gt_joints_2d", "gt_joints_3d")
        ]
        return fitted_camera(both[0] * scale, both[1])

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one picture."""
        path, row, person, stem, box = data
        table = self._table(path)
        record = self.read_image(self._image(split, stem))
        scale = self._scale(record["image_width"])
        fields = {"joints_cam_m": np.zeros((24, 4)), "keypoints_px": np.zeros((24, 3))}
        names = {"joints_cam_m": "gt_joints_3d", "keypoints_px": "gt_joints_2d"}
        for field, name in names.items():
            joints = self._joints(path, row, person, name)
            joints = joints * scale if field == "keypoints_px" else joints
            fields[field][: len(joints)] = with_validity(joints)
        record |= {
            "sequence_id": stem.rpartition("_")[0],
            "frame_id": annotation_lists.frame_number(stem),
            "person_id": person,
            "bbox_xywh_px": box,
            "gender": gender_of(
                self, f"{path}: row {row}: gender", table["gender"][row][person]
            ),
            **fields,
        }
        for field, name in (("is_kid", "kid"), ("occlusion_percent", "occlusion")):
            if name in table:
                record[field] = float(table[name][row][person])
        camera = self._camera(path, row, scale)
        return record if camera is None else record | {"intrinsics": camera}
