"""Find bodies in pictures, with their uncertainty.

    hmr-jax predict --workdir=runs/hierprob --images=photos --joints2d=joints.json \\
        --out=results
    hmr-jax predict --config=configs/hierprob.py --params=hierprob.safetensors \\
        --images=photos --pose2d=hrnet.safetensors --boxes=boxes.json --out=results

2D joints come from an HRNet (--pose2d, parameters written by hmr-jax convert
--system=hrnet) or from a file (--joints2d). Persons are where --boxes says, else around
the joints of the file, else the whole picture.

For each person of a picture NAME.jpg: NAME_0.npz (betas, distributions and rotations of
the pose, camera, vertices and joints in metres with y up, uncertainty of each vertex,
2D joints and boxes in pixels of the picture), NAME_0.png and NAME_0_samples.png. For
each picture NAME_overlay.png, all its bodies in their places; predictions.json and
overview.png (the first 64 persons) over all. pictures.json says which picture each NAME
belongs to: pictures of equal names get longer ones. Results that are there already are
kept: a run that was cut off goes on. What predict did not write it never writes over.
Exit code 1 where a picture could not be read or predicted, or has boxes or joints that
cannot be its own.
"""

import dataclasses
import functools
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
    number("box_scale", 1.2, 0.1, 10.0, "Margin around boxes.")
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
    if not (values.pose2d or values.joints2d):
        raise cli.UsageError(
            "missing 2D joints: give --pose2d=FILE (an HRNet that finds them; see "
            "hmr-jax convert --system=hrnet) or --joints2d=FILE (joints of your own)"
        )
    if values.pose2d and values.joints2d:
        raise cli.UsageError("expected --pose2d or --joints2d, found both")
    if is_remote(values.out):
        raise cli.UsageError(
            f"--out: expected a folder of this machine, found {values.out}"
        )
    if values.workdir:
        cli.existing(values.workdir, "--workdir")

    from hmr_jax.commands import predict_inputs, predict_names
    from hmr_jax.commands.predict_outputs import MESH_FORMATS

    if not set(values.mesh_formats) <= set(MESH_FORMATS):
        raise cli.UsageError(
            f"--mesh_formats: expected some of {', '.join(MESH_FORMATS)}, found "
            f"{', '.join(values.mesh_formats)}"
        )
    paths = predict_inputs.list_pictures(given)
    predict_names.plan(pathlib.Path(values.out), paths)  # before a model is loaded
    choice = _choice(values, paths)
    predictor, body, settings = _load(values)
    from hmr_jax.commands import predict_run

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
    print(f"results: {pathlib.Path(values.out) / predict_names.SUMMARY}")
    return 1 if report.failed else 0


def _choice(values: Any, paths: list[pathlib.Path]) -> Any:
    from hmr_jax.commands import person_boxes, predict_inputs

    boxes = joints = None
    pictures = [str(path) for path in paths]
    if values.boxes and not values.cropped:
        boxes = person_boxes.read_boxes(values.boxes).for_pictures(pictures)
        predict_inputs.check_known(boxes, "--boxes")
    if values.joints2d:
        joints = person_boxes.read_joints2d(values.joints2d).for_pictures(pictures)
        predict_inputs.check_known(joints, "--joints2d")
    return predict_inputs.Choice(
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
    from hmr_jax.commands import predict_engine
    from hmr_jax.commands.experiment import load_chosen
    from hmr_jax.commands.predict_outputs import checksum

    config = _config(values)
    if config.system != "hierprob":
        raise UserError(
            f"config.system: expected 'hierprob' (what predict can do so far), found "
            f"{config.system!r}"
        )
    if values.gender:
        config.body.gender = values.gender
    from hmr_jax.systems.hierprob import task as hierprob_task

    pose2d = predict_engine.load_pose2d(values.pose2d) if values.pose2d else None
    _, body, _, trained = load_chosen(config, values)
    logging.info("model: %s", trained.origin)
    options = predict_engine.Options(
        size_px=config.image_size_px,
        num_samples=values.samples,
        sample_shape=values.sample_shape,
        visibility_threshold=values.visibility_threshold,
        box_scale=values.box_scale,
        side_bands=values.side_bands,
        seed=values.seed,
    )
    apply = functools.partial(hierprob_task.make_model(config).apply, train=False)
    predictor = predict_engine.Predictor(
        apply, trained.variables, body, options, pose2d=pose2d
    )
    settings = {
        "model": trained.origin,
        "model_crc": checksum(trained.variables),
        "pose2d": values.pose2d or "",
        "pose2d_crc": checksum(pose2d[1]) if pose2d else 0,
        "body": config.body.path or "open",
        "body_crc": checksum(body),
        "gender": config.body.gender,
        **dataclasses.asdict(options),
    }
    return predictor, body, settings
