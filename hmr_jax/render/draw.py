"""Pictures for people: overlays, skeletons, boxes, contact sheets (numpy and OpenCV).

Images are uint8 arrays [height, width, 3]; every function returns a new one.
"""

import functools
import os
from collections.abc import Sequence

import cv2
import numpy as np

from hmr_jax.files import atomic_write
from hmr_jax.pictures import decode_picture

LEFT_RGB, RIGHT_RGB, MIDDLE_RGB = (255, 120, 40), (60, 140, 255), (80, 220, 120)
CAPTION_BAND_PX = 14
_SHIFT = 4  # OpenCV draws at whole sixteenths of a pixel


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] (or bytes already) as bytes.

    Args:
        image: float in [0, 1], clipped outside, or uint8.

    Returns:
        The same shape in uint8.
    """
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    scaled = np.clip(np.nan_to_num(image.astype(np.float32)), 0.0, 1.0) * 255.0
    return np.round(scaled).astype(np.uint8)


def _checked(image: np.ndarray) -> np.ndarray:
    image = to_uint8(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"expected an image [height, width, 3], got {image.shape}")
    return image


def _canvas(image: np.ndarray) -> np.ndarray:
    """A copy that OpenCV can draw on."""
    return np.array(_checked(image), order="C")


def _sixteenths(places_px: np.ndarray) -> list:
    # What lies far outside needs no exact place, and has one that fits C integers.
    near = np.clip(np.nan_to_num(places_px), -1e5, 1e5)
    return np.round(near * 2**_SHIFT).astype(int).tolist()


def draw_line(
    canvas: np.ndarray, ends_px: np.ndarray, rgb: tuple[int, ...], width_px: int = 1
) -> None:
    """Draw a line between two (x, y) into a uint8 picture."""
    start, end = _sixteenths(np.asarray(ends_px))
    # A smooth line is a pixel wider than asked for, and pale where it is thin.
    width, kind = (
        (width_px - 1, cv2.LINE_AA) if width_px > 2 else (width_px, cv2.LINE_8)
    )
    cv2.line(canvas, start, end, rgb, width, kind, _SHIFT)


def draw_dot(
    canvas: np.ndarray,
    place_px: np.ndarray,
    rgb: tuple[int, ...],
    radius_px: float | int,
) -> None:
    """Draw a filled circle about (x, y) into a uint8 picture."""
    *centre, radius = _sixteenths(np.append(place_px, radius_px))
    cv2.circle(canvas, centre, radius, rgb, cv2.FILLED, cv2.LINE_AA, _SHIFT)


@functools.cache
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


def draw_text(
    canvas: np.ndarray,
    text: str,
    left_px: float | int,
    baseline_px: float | int,
    rgb: tuple[int, ...],
    size_px: int = 10,
) -> None:
    """Write text of any letters into a uint8 picture; what does not fit is cut off."""
    # The reading of its arguments by name is the only one that knows fonts.
    place = round(left_px), round(baseline_px)
    cv2.putText(
        img=canvas, text=text, org=place, color=rgb, fface=_font(), size=size_px
    )


def text_width(text: str, size_px: int = 10) -> int:
    """Pixels across that ``draw_text`` takes."""
    return cv2.getTextSize(
        imgsize=(0, 0), text=text, org=(0, 0), fface=_font(), size=size_px
    )[2]


def overlay_mesh(
    image: np.ndarray, rgba: np.ndarray, opacity: float = 0.8
) -> np.ndarray:
    """Lay a rendering over a picture.

    Args:
        image: [height, width, 3].
        rgba: [height, width, 4], colours in [0, 1] that are not premultiplied, and
            the share of the pixel the mesh covers.
        opacity: 1 hides the picture behind the mesh.

    Returns:
        uint8 image.

    Raises:
        ValueError: the sizes differ.
    """
    image = _checked(image)
    if rgba.shape != (*image.shape[:2], 4):
        raise ValueError(f"expected rgba of {image.shape[:2]} + (4,), got {rgba.shape}")
    rgba = to_uint8(rgba).astype(np.float32)
    alpha = rgba[..., 3:] / 255.0 * opacity
    return to_uint8((rgba[..., :3] * alpha + image * (1 - alpha)) / 255.0)


def side_colours(parents: Sequence[int], joints: Sequence[str] | None) -> list[tuple]:
    """A colour for each joint by the side its name starts with.

    Args:
        parents: parent of each joint.
        joints: names; without them every joint has the middle colour.

    Returns:
        One RGB tuple for each joint.
    """
    names = joints or [""] * len(parents)
    sides = {"left": LEFT_RGB, "right": RIGHT_RGB}
    return [sides.get(name.split("_")[0], MIDDLE_RGB) for name in names]


def draw_skeleton(
    image: np.ndarray,
    joints_px: np.ndarray,
    parents: Sequence[int],
    *,
    visible: np.ndarray | None = None,
    joints: Sequence[str] | None = None,
    width_px: int | None = None,
) -> np.ndarray:
    """Draw bones and joints.

    Args:
        image: [height, width, 3].
        joints_px: [joints, 2] or more columns, of which the first two are used.
        parents: parent of each joint, -1 at roots.
        visible: [joints], false to leave a joint and its bone out; by default joints
            that are not finite are left out.
        joints: names, by which left, right and middle get their colours.
        width_px: of the lines; by default 1/100 of the image.

    Returns:
        uint8 image.

    Raises:
        ValueError: the number of joints and of parents differ.
    """
    points = np.asarray(joints_px, np.float64)[:, :2]
    if len(points) != len(parents):
        raise ValueError(f"expected {len(parents)} joints, got {len(points)}")
    shown = np.all(np.isfinite(points), axis=1)
    shown &= True if visible is None else np.asarray(visible).astype(bool)
    colours = side_colours(parents, joints)
    canvas = _canvas(image)
    width = width_px or max(1, round(max(canvas.shape) / 100))
    for joint, parent in enumerate(parents):
        if parent >= 0 and shown[joint] and shown[parent]:
            draw_line(canvas, points[[parent, joint]], colours[joint], width)
    for place in points[shown]:
        draw_dot(canvas, place, (255, 255, 255), width)
    return canvas


def draw_boxes(
    image: np.ndarray,
    boxes_xywh_px: np.ndarray,
    *,
    colour: tuple[int, int, int] = (255, 220, 0),
    width_px: int = 1,
) -> np.ndarray:
    """Draw outlines of boxes.

    Args:
        image: [height, width, 3].
        boxes_xywh_px: [..., 4] left, top, width, height.
        colour: RGB.
        width_px: of the outline.

    Returns:
        uint8 image.
    """
    canvas = _canvas(image)
    for box in np.asarray(boxes_xywh_px, np.float64).reshape(-1, 4):
        end = box[:2] + np.maximum(box[2:], 0)
        first, last = _sixteenths(np.stack([box[:2], end]))
        cv2.rectangle(canvas, first, last, colour, width_px, cv2.LINE_8, _SHIFT)
    return canvas


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a picture.

    Args:
        image: [height, width, 3] colours or [height, width] grey.
        height: of the result, pixels.
        width: of the result, pixels.

    Returns:
        uint8 image; means of areas where it shrinks, else bilinear.
    """
    image = to_uint8(image)
    shrinks = height < image.shape[0] or width < image.shape[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=kind)


def add_caption(image: np.ndarray, caption: str) -> np.ndarray:
    """Put a line of text in a dark band under a picture.

    Args:
        image: [height, width, 3].
        caption: cut where it does not fit.

    Returns:
        uint8 image, ``CAPTION_BAND_PX`` higher.
    """
    image = _checked(image)
    canvas = np.pad(image, ((0, CAPTION_BAND_PX), (0, 0), (0, 0)), constant_values=24)
    draw_text(canvas, caption, 2, len(image) + 11, (235, 235, 235))
    return canvas


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int = 4,
    captions: Sequence[str] | None = None,
    gap_px: int = 4,
) -> np.ndarray:
    """Lay pictures out in rows.

    Args:
        images: [height, width, 3] each, of any sizes.
        columns: pictures in a row.
        captions: one line of text for each picture.
        gap_px: space between pictures.

    Returns:
        uint8 image.

    Raises:
        ValueError: no pictures, or another number of captions.
    """
    if not len(images) or columns < 1:
        raise ValueError(f"expected pictures, got {len(images)} in {columns} columns")
    if captions is not None:
        if len(captions) != len(images):
            raise ValueError(f"expected {len(images)} captions, got {len(captions)}")
        images = [add_caption(*pair) for pair in zip(images, captions, strict=True)]
    images = [_checked(image) for image in images]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = max(image.shape[0] for image in images) + gap_px
    width = max(image.shape[1] for image in images) + gap_px
    sheet = np.full(
        (rows * height + gap_px, columns * width + gap_px, 3), 255, np.uint8
    )
    for index, image in enumerate(images):
        top = gap_px + index // columns * height
        left = gap_px + index % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def encode_image(
    image: np.ndarray, image_format: str = "png", quality: int = 92
) -> bytes:
    """Compress a picture in memory.

    Args:
        image: [height, width, 3] colours or [height, width] grey, bytes or in [0, 1].
        image_format: "png" or "jpeg".
        quality: of JPEG, 1 to 95.

    Returns:
        The file's bytes.

    Raises:
        ValueError: another format.
    """
    if image_format not in ("png", "jpeg"):
        raise ValueError(f"expected image_format 'png' or 'jpeg', got {image_format!r}")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if image_format == "jpeg" else []
    pixels = to_uint8(image)
    pixels = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(f".{image_format}", pixels, options)[1].tobytes()


def decode_image(data: bytes) -> np.ndarray:
    """The pixels of a compressed picture.

    Args:
        data: bytes of an image file.

    Returns:
        RGB, uint8 array [height, width, 3]; see ``hmr_jax.pictures``.

    Raises:
        UnreadablePictureError: it is none, or not whole.
    """
    return decode_picture(data, "picture in memory")


def save_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write a PNG file, whole or not at all.

    Args:
        path: the file; its folder is made where it is missing.
        image: [height, width, 3] or [height, width], bytes or in [0, 1].
    """
    data = encode_image(image, "png")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def save_jpeg(path: str | os.PathLike, image: np.ndarray, quality: int = 92) -> None:
    """Write a JPEG file, whole or not at all.

    Args:
        path: the file; its folder is made where it is missing.
        image: [height, width, 3] or [height, width], bytes or in [0, 1].
        quality: 1 to 95.
    """
    data = encode_image(image, "jpeg", quality)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
