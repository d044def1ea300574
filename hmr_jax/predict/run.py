"""The loop of predict: pictures in, results out, a batch at a time."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from hmr_jax import progress
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.files import locked
from hmr_jax.predict import names as predict_names
from hmr_jax.predict import outputs, overlay, persons
from hmr_jax.predict import pictures as predict_pictures
from hmr_jax.predict.engine import Cut, Predictor
from hmr_jax.predict.names import OVERVIEW, SUMMARY
from hmr_jax.predict.persons import Person
from hmr_jax.render import draw
from hmr_jax.training import records


@dataclasses.dataclass
class Report:
    """What a run did.

    Attributes:
        people: summary of every person with a result, new or kept.
        skipped: pictures without a person.
        failed: pictures and persons that could not be done.
        kept: persons whose result was there already.
    """

    people: list[dict] = dataclasses.field(default_factory=list)
    skipped: list[dict] = dataclasses.field(default_factory=list)
    failed: list[dict] = dataclasses.field(default_factory=list)
    kept: int = 0

    def text(self) -> str:
        """One line about all."""
        return (
            f"{len(self.people)} persons ({self.kept} of them were there already), "
            f"{len(self.skipped)} pictures skipped, {len(self.failed)} failed"
        )


@dataclasses.dataclass(frozen=True)
class Run:
    """Predicts and writes.

    Attributes:
        out: folder of the results.
        predictor: what predicts.
        body: for meshes and pictures.
        settings: what results depend on, besides pictures, boxes and joints.
        batch_size: persons at once.
        pictures: draw them.
        uncropped: also draw all persons of a picture in it.
        meshes: formats to write meshes in, of ``outputs.MESH_FORMATS``.
        keep_samples: write what was drawn.
        overwrite: replace results that are there.
        tile_px: side of each part of the pictures.
    """

    out: pathlib.Path
    predictor: Predictor
    body: BodyModel
    settings: dict[str, Any]
    batch_size: int = 8
    pictures: bool = True
    uncropped: bool = True
    meshes: Sequence[str] = ()
    keep_samples: bool = False
    overwrite: bool = False
    tile_px: int = predict_pictures.TILE_PX

    def __call__(self, paths: Sequence[pathlib.Path], choice: persons.Choice) -> Report:
        """Go through pictures.

        Args:
            paths: of the pictures.
            choice: how to choose persons.

        Returns:
            What was done; it is also in ``predictions.json``.

        Raises:
            UserError: a result is there that was made with other settings, or a file
                that predict did not write; or another process predicts there.
        """
        predict_names.plan(self.out, paths)  # a folder that is refused gets no lock
        with locked(self.out, "predicting here"):
            return self._go(paths, choice)

    def _go(self, paths: Sequence[pathlib.Path], choice: persons.Choice) -> Report:
        names = predict_names.plan(self.out, paths)
        predict_names.write_ledger(self.out, names)
        report = Report()
        waiting: list[Cut] = []
        tiles: _Tiles = {}
        overlays = overlay.Overlays(
            self.out, self.body, drawn=self.pictures and self.uncropped
        )
        found = persons.walk(paths, names, choice, report.skipped, report.failed)
        for picture, people in progress.bar(found, total=len(paths), unit="pictures"):
            overlays.begin(picture, people)
            for person in people:
                kept = self._kept(person, report)
                if kept is not None:
                    overlays.add(person, kept, new=False)
                    self._tile(tiles, self.predictor.cut(picture, person), kept)
                    continue
                overlays.forget(person)
                self._note(person, picture)
                waiting.append(self.predictor.cut(picture, person))
                if len(waiting) == self.batch_size:
                    self._batch(waiting, report, tiles, overlays)
                    waiting = []
        if waiting:
            self._batch(waiting, report, tiles, overlays)
        self._finish(report, tiles, paths)
        return report

    def _kept(self, person: Person, report: Report) -> dict | None:
        """A person's result that need not be made."""
        if self.overwrite:
            return None
        path = self.out / f"{outputs.result_stem(person)}.npz"
        arrays = outputs.read_result(path)
        if arrays is None:
            return None
        made_with = outputs.fingerprint(self.settings, person)
        if str(arrays["made_with"]) != made_with:
            raise UserError(
                f"{path}: was made with another model, other settings, another "
                "picture, other boxes or joints; give another --out, or --overwrite"
            )
        report.people.append(outputs.summary_row(person, arrays))
        report.kept += 1
        return arrays

    def _note(self, person: Person, picture: np.ndarray) -> None:
        if person.note:
            logging.warning("%s: %s", person.path, person.note)
        if not picture.any():
            logging.warning("%s: the picture is black: no edges", person.path)

    def _batch(
        self,
        cuts: list[Cut],
        report: Report,
        tiles: "_Tiles",
        overlays: overlay.Overlays,
    ) -> None:
        for cut, prediction in zip(
            cuts, self.predictor(cuts, self.batch_size), strict=True
        ):
            person = cut.person
            if not np.asarray(prediction["joints2d_visible"]).any():
                logging.warning(
                    "%s: no 2D joint of person %d is visible: the result says little",
                    person.path,
                    person.index,
                )
            try:
                arrays = outputs.arrays_of(prediction, with_samples=self.keep_samples)
            except FloatingPointError as error:
                logging.error("%s: person %d: %s", person.path, person.index, error)
                reason = {**persons.told(person.path), "person": person.index}
                report.failed.append({**reason, "reason": str(error)})
                overlays.add(person, None, new=True)
                continue
            self._write(person, prediction, arrays)
            self._tile(tiles, cut, arrays)
            overlays.add(person, arrays, new=True)
            report.people.append(outputs.summary_row(person, arrays))

    def _write(self, person, prediction, arrays) -> None:
        """Write a person's files; the result last, for it says that all is there."""
        stem = outputs.result_stem(person)
        faces = np.asarray(self.body.faces)
        for kind in self.meshes:
            path = self.out / f"{stem}.{kind}"
            outputs.write_mesh(path, arrays["vertices_m"], faces)
        if self.pictures:
            sheet = predict_pictures.person_sheet(prediction, self.body, self.tile_px)
            draw.save_png(self.out / f"{stem}.png", sheet)
            if "shown_vertices_m" in prediction:
                sheet = predict_pictures.sample_sheet(
                    prediction, self.body, self.tile_px
                )
                draw.save_png(self.out / f"{stem}_samples.png", sheet)
        made_with = outputs.fingerprint(self.settings, person)
        outputs.write_result(self.out / f"{stem}.npz", arrays, made_with)

    def _tile(self, tiles: "_Tiles", cut: Cut, arrays: dict) -> None:
        """Draw a person's part of the overview, from the result alone."""
        if self.pictures and len(tiles) < predict_pictures.OVERVIEW_LIMIT:
            tiles[cut.person.path, cut.person.index] = (
                outputs.result_stem(cut.person),
                predict_pictures.overview_tile(
                    cut.crop, arrays, self.body, self.tile_px // 2
                ),
            )

    def _finish(
        self, report: Report, tiles: "_Tiles", paths: Sequence[pathlib.Path]
    ) -> None:
        place = {path: number for number, path in enumerate(paths)}
        if tiles:
            ordered = sorted(tiles, key=lambda who: (place[who[0]], who[1]))
            names, pictures = zip(*(tiles[who] for who in ordered), strict=True)
            sheet = draw.contact_sheet(pictures, 4, names)
            draw.save_png(self.out / OVERVIEW, sheet)
        order = sorted(
            report.people, key=lambda row: (row["file"], row["picture"], row["person"])
        )
        records.write_json(
            self.out / SUMMARY,
            {
                "settings": self.settings,
                "versions": records.package_versions(),
                "people": order,
                "skipped": report.skipped,
                "failed": report.failed,
            },
        )


_Tiles = dict[tuple[pathlib.Path, int], tuple[str, np.ndarray]]
"""Picture and person -> caption and part of the overview."""
