"""Pictures for people: overlays, skeletons, boxes, contact sheets (numpy and Pillow).

Images are uint8 arrays [height, width, 3]; every function returns a new one.
"""

import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hmr_jax.files import atomic_write
from hmr_jax.pictures import decode_picture

LEFT_RGB, RIGHT_RGB, MIDDLE_RGB = (255, 120, 40), (60, 140, 255), (80, 220, 120)
CAPTION_BAND_PX = 14


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
    # Pillow draws with C integers; what lies far outside needs no exact place.
    points = np.clip(np.nan_to_num(points), -1e5, 1e5)
    colours = side_colours(parents, joints)
    picture = Image.fromarray(_checked(image))
    canvas = ImageDraw.Draw(picture)
    width = width_px or max(1, round(max(picture.size) / 100))
    for joint, parent in enumerate(parents):
        if parent >= 0 and shown[joint] and shown[parent]:
            ends = [tuple(points[parent]), tuple(points[joint])]
            canvas.line(ends, fill=colours[joint], width=width)
    for x, y in points[shown]:
        canvas.ellipse([x - width, y - width, x + width, y + width], fill="white")
    return np.array(picture)


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
    picture = Image.fromarray(_checked(image))
    canvas = ImageDraw.Draw(picture)
    for x, y, width, height in np.asarray(boxes_xywh_px, np.float64).reshape(-1, 4):
        corners = np.clip([x, y, x + max(width, 0), y + max(height, 0)], -1e5, 1e5)
        canvas.rectangle(list(corners), outline=colour, width=width_px)
    return np.array(picture)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a picture.

    Args:
        image: [height, width, 3].
        height: of the result, pixels.
        width: of the result, pixels.

    Returns:
        uint8 image, bilinear.
    """
    size = (width, height)
    picture = Image.fromarray(_checked(image))
    return np.array(picture.resize(size, Image.Resampling.BILINEAR))


def add_caption(image: np.ndarray, caption: str) -> np.ndarray:
    """Put a line of text in a dark band under a picture.

    Args:
        image: [height, width, 3].
        caption: cut where it does not fit.

    Returns:
        uint8 image, ``CAPTION_BAND_PX`` higher.
    """
    image = _checked(image)
    height, width = image.shape[:2]
    picture = Image.new("RGB", (width, height + CAPTION_BAND_PX), (24, 24, 24))
    picture.paste(Image.fromarray(image))
    font = ImageFont.load_default(10)
    canvas = ImageDraw.Draw(picture)
    canvas.text((2, height + 1), caption, fill=(235, 235, 235), font=font)
    return np.array(picture)


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
    options = {"quality": quality} if image_format == "jpeg" else {}
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, image_format, **options)
    return buffer.getvalue()


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
