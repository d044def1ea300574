"""Find bodies in pictures, with their uncertainty where the system knows it.

    hmr-jax predict --workdir=runs/quickstart --images=photos --boxes=boxes.json \\
        --out=results
    hmr-jax predict --workdir=runs/hierprob --images=photos --joints2d=joints.json \\
        --out=results
    hmr-jax predict --config=configs/hierprob.py --params=hierprob.safetensors \\
        --images=photos --pose2d=hrnet.safetensors --boxes=boxes.json --out=results

Persons are where --boxes says, else around the joints of --joints2d, else the whole
picture. Systems that look at 2D joints get them from an HRNet (--pose2d, parameters
written by hmr-jax convert --system=hrnet) or from the file. Others place the person by
the focal length (--focal_px).

For each person of a picture NAME.jpg: NAME_0.npz (betas, rotations of the pose, camera,
vertices and joints in metres with y up, 2D joints and boxes in pixels of the picture,
and with distributions these and the uncertainty of each vertex), NAME_0.png and
NAME_0_samples.png. For
each picture NAME_overlay.png, all its bodies in their places; predictions.json and
overview.png (the first 64 persons) over all. pictures.json says which picture each NAME
belongs to: pictures of equal names get longer ones. Results that are there already are
kept: a run that was cut off goes on. What predict did not write it never writes over.
Exit code 1 where a picture could not be read or predicted, or has boxes or joints that
cannot be its own.
"""

import pathlib
from typing import Any

from absl import flags, logging

from hmr_jax.commands import cli
from hmr_jax.errors import UserError
from hmr_jax.remote import is_remote


def _define(values: flags.FlagValues) -> None:
    def text(name: str, default: str | None, said: str) -> None:
        flags.DEFINE_string(name, default, said, flag_values=values)

    def switch(name: str, default: bool, said: str) -> None:
        flags.DEFINE_bool(name, default, said, flag_values=values)

    flags.DEFINE_list(
        "images",
        [],
        "Pictures (JPEG, PNG, BMP, WebP, TIFF; of any depth and colours) "
        "or folders of them.",
        flag_values=values,
    )
    text("out", None, "Folder to write to.")
    text("workdir", None, "Folder of the run whose model is used.")
    text("checkpoint", "best", "best, latest, or a step of the workdir.")
    text("params", None, "Or a file of parameters (.npz or .safetensors).")
    text("pose2d", None, "Parameters of an HRNet, to find the 2D joints.")
    text("joints2d", None, "Or a file of 2D joints of COCO's 17 (.json or .npz).")
    text("boxes", None, "File of the persons' boxes (.json or .npz).")
    switch("cropped", False, "The pictures are of one person each, cut already.")
    switch("nearest_centre", False, "Only the person nearest the picture's centre.")
    flags.DEFINE_enum(
        "without_box",
        "skip",
        ["skip", "whole"],
        "What to do with a picture that has no box: skip it, or take it whole (as "
        "published).",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "gender",
        None,
        ["neutral", "male", "female"],
        "Of the body model; the config's by default. It chooses the file in a folder "
        "given as --config.body.path. The parameters must match.",
        flag_values=values,
    )
    switch("pictures", True, "Draw pictures.")
    switch("uncropped", True, "Also draw NAME_overlay.png, the bodies in the picture.")
    switch("mesh", False, "Also write NAME_0.obj, or what --mesh_formats says.")
    flags.DEFINE_list(
        "mesh_formats",
        ["obj"],
        "Of --mesh, one or more of obj, ply, glb.",
        flag_values=values,
    )
    switch("keep_samples", False, "Also write the poses and shapes that were drawn.")
    switch("sample_shape", False, "Draw the shape, too; as published: the pose alone.")
    switch("side_bands", False, "Black bands beside each crop, as published.")
    switch("overwrite", False, "Replace results that are there already.")
    _define_numbers(values)


def _define_numbers(values: flags.FlagValues) -> None:
    def number(name: str, default: float, low: float, high: float | None, said: str):
        flags.DEFINE_float(name, default, said, low, high, flag_values=values)

    def count(name: str, default: int, low: int, said: str):
        flags.DEFINE_integer(name, default, said, low, flag_values=values)

    count("samples", 50, 0, "Bodies drawn per person; 0: none, and no uncertainty.")
    count("batch_size", 8, 1, "Persons at once.")
    count("seed", 0, 0, "Of the samples.")
    count("tile_px", 256, 16, "Side of each part of the pictures.")
    number("box_threshold", 0.95, 0.0, 1.0, "A box must have a larger score.")
    number("box_scale", 0.0, 0.0, 10.0, "Margin around boxes; 0: as in training.")
    number("focal_px", 0.0, 0.0, None, "Focal length; 0: the picture's diagonal.")
    number(
        "visibility_threshold",
        0.75,
        0.0,
        None,
        "Elbows, wrists, knees and ankles must be more certain than this.",
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``predict``.

    Returns:
        0; 1 where a picture could not be read or predicted.
    """
    values, rest = cli.parse("predict", __doc__, _define, argv, with_config=True)
    cli.require(values, "images", "out")
    given = [*values.images, *rest]  # a shell's photos/*.jpg
    if not (values.workdir or values.params):
        raise cli.UsageError("missing --workdir or --params")
    if values.pose2d and values.joints2d:
        raise cli.UsageError("expected --pose2d or --joints2d, found both")
    if is_remote(values.out):
        raise cli.UsageError(
            f"--out: expected a folder of this machine, found {values.out}"
        )
    if values.workdir:
        cli.existing(values.workdir, "--workdir")

    from hmr_jax.predict import names, persons
    from hmr_jax.predict.outputs import MESH_FORMATS

    if not set(values.mesh_formats) <= set(MESH_FORMATS):
        raise cli.UsageError(
            f"--mesh_formats: expected some of {', '.join(MESH_FORMATS)}, found "
            f"{', '.join(values.mesh_formats)}"
        )
    paths = persons.list_pictures(given)
    names.plan(pathlib.Path(values.out), paths)  # before a model is loaded
    choice = _choice(values, paths)
    predictor, body, settings = _load(values)
    from hmr_jax.predict import run as predict_run

    run = predict_run.Run(
        pathlib.Path(values.out),
        predictor,
        body,
        settings,
        batch_size=values.batch_size,
        pictures=values.pictures,
        uncropped=values.uncropped,
        meshes=values.mesh_formats if values.mesh else (),
        keep_samples=values.keep_samples,
        overwrite=values.overwrite,
        tile_px=values.tile_px,
    )
    report = run(paths, choice)
    print(report.text())
    print(f"results: {pathlib.Path(values.out) / names.SUMMARY}")
    return 1 if report.failed else 0


def _choice(values: Any, paths: list[pathlib.Path]) -> Any:
    from hmr_jax.predict import boxes as person_boxes
    from hmr_jax.predict import persons

    boxes = joints = None
    pictures = [str(path) for path in paths]
    if values.boxes and not values.cropped:
        boxes = person_boxes.read_boxes(values.boxes).for_pictures(pictures)
        persons.check_known(boxes, "--boxes")
    if values.joints2d:
        joints = person_boxes.read_joints2d(values.joints2d).for_pictures(pictures)
        persons.check_known(joints, "--joints2d")
    return persons.Choice(
        boxes=boxes,
        joints=joints,
        threshold=values.box_threshold,
        visibility_threshold=values.visibility_threshold,
        nearest_centre=values.nearest_centre,
        whole_if_none=values.without_box == "whole",
        cropped=values.cropped,
    )


def _config(values: Any) -> Any:
    """The config given, the run's, or the one that lies in the file of parameters."""
    if values.config is None and values.params:
        import ml_collections

        from hmr_jax.export.params import read_metadata

        recorded = read_metadata(values.params).get("config")
        if isinstance(recorded, dict):
            return ml_collections.ConfigDict(recorded).lock()
        raise cli.UsageError(
            f"missing --config ({values.params} does not say what it was trained with)"
        )
    return cli.config_of_run(values)


def _load(values: Any) -> tuple[Any, Any, dict]:
    """The predictor, its body, and what results depend on."""
    from hmr_jax import systems
    from hmr_jax.commands.experiment import load_chosen
    from hmr_jax.predict import engine
    from hmr_jax.predict.outputs import checksum

    config = _config(values)
    if values.gender:
        config.body.gender = values.gender
    system = systems.get(config.system)
    people = system.people
    if people is None:
        raise UserError(f"config.system: {config.system!r} predicts no persons")
    if system.needs_joints2d and not (values.pose2d or values.joints2d):
        raise cli.UsageError(
            "missing 2D joints: give --pose2d=FILE (an HRNet that finds them; see "
            "hmr-jax convert --system=hrnet) or --joints2d=FILE (joints of your own)"
        )
    pose2d = engine.load_pose2d(values.pose2d) if values.pose2d else None
    _, body, _, trained = load_chosen(config, values)
    logging.info("model: %s", trained.origin)
    options = {
        "num_samples": values.samples,
        "sample_shape": values.sample_shape,
        "visibility_threshold": values.visibility_threshold,
    }
    crops = {
        "padding": values.box_scale or system.padding,
        "side_bands": values.side_bands,
        "focal_px": values.focal_px,
        "seed": values.seed,
    }
    predictor = engine.Predictor(
        people(config, options),
        trained.variables,
        body,
        pose2d=pose2d,
        needs_joints2d=system.needs_joints2d,
        **crops,
    )
    settings = {
        "model": trained.origin,
        "model_crc": checksum(trained.variables),
        "pose2d": values.pose2d or "",
        "pose2d_crc": checksum(pose2d[1]) if pose2d else 0,
        "body": config.body.path or "open",
        "body_crc": checksum(body),
        "gender": config.body.gender,
        "size_px": config.image_size_px,
        **options,
        **crops,
    }
    return predictor, body, settings
