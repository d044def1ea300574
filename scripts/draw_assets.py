"""Draw the open body and the open hand for the documentation.

python scripts/draw_assets.py --out docs/images
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from hmr_jax.body.forward import body_forward
from hmr_jax.body.open_assets import load_open_body, load_open_hand
from hmr_jax.render.shade import Light, render_mesh
from hmr_jax.synthetic.motion import load_motion

SKIN_RGB = (0.80, 0.62, 0.52)
DISTANCE_M = 12.0
LIGHT = Light(jnp.full(3, 0.38), jnp.array([-0.6, -0.8, -1.0]), jnp.full(3, 0.68))
POSES = (("walk", 0), ("jump", 20), ("dance_b", 60), ("kick", 22), ("cartwheel", 40))


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix about x or y."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


class Camera:
    """A distant camera that looks along -z at a point, after turning the object."""

    def __init__(self, centre_m, extent_m, size_px, rotation=None):
        self.rotation = np.eye(3) if rotation is None else rotation
        self.centre = np.asarray(centre_m, float)
        self.size = size_px
        focal = size_px / extent_m * DISTANCE_M
        middle = (size_px - 1) / 2
        self.intrinsics = jnp.array(
            [[focal, 0, middle], [0, focal, middle], [0, 0, 1]], jnp.float32
        )

    def to_camera(self, points_m) -> np.ndarray:
        """Points in the camera's frame (x right, y down, z forward)."""
        points = (np.asarray(points_m) - self.centre) @ self.rotation.T
        return points * [1, -1, -1] + [0, 0, DISTANCE_M]

    def draw(self, model, output, skeleton=False) -> Image.Image:
        """A picture of the mesh on white, with joints and bones over it on request."""
        rendered = render_mesh(
            jnp.asarray(self.to_camera(output.vertices_m), jnp.float32),
            model.faces,
            self.intrinsics,
            self.size,
            self.size,
            vertex_rgb=jnp.broadcast_to(jnp.array(SKIN_RGB), (model.num_vertices, 3)),
            light=LIGHT,
            background=jnp.ones((self.size, self.size, 3)),
            supersample=2,
        )
        picture = np.asarray(jnp.clip(rendered.image, 0, 1) * 255).astype(np.uint8)
        image = Image.fromarray(picture)
        if skeleton:
            self._draw_bones(image, model, self.to_camera(output.joints_m))
        return image

    def _draw_bones(self, image, model, joints_cam_m):
        pixels = joints_cam_m @ np.asarray(self.intrinsics).T
        pixels = pixels[:, :2] / pixels[:, 2:]
        brush = ImageDraw.Draw(image)
        for joint, parent in enumerate(model.parents):
            if parent >= 0:
                line = [tuple(pixels[parent]), tuple(pixels[joint])]
                brush.line(line, fill=(30, 80, 200), width=2)
        for x, y in pixels:
            brush.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], fill=(210, 30, 40))


def rows_of(images: list[list[Image.Image]]) -> Image.Image:
    """Rows of equally large pictures, in 64 colours."""
    grid = np.concatenate(
        [np.concatenate([np.asarray(i) for i in r], 1) for r in images]
    )
    return Image.fromarray(grid).quantize(64, dither=Image.Dither.NONE)


def body_picture(size_px: int) -> Image.Image:
    """T-pose with joints, shapes, and poses of the motion clips."""
    body = load_open_body()
    forward = jax.jit(body_forward)

    def shaped(first, second=0.0, pose=None):
        betas = jnp.zeros(10).at[0].set(first).at[1].set(second)
        return forward(body, betas, jnp.zeros((24, 3)) if pose is None else pose)

    middle = [0, -0.05, 0]
    front, side = (
        Camera(middle, 2.15, size_px, turn("y", angle)) for angle in (0, -90)
    )
    top = [front.draw(body, shaped(0.0), True), side.draw(body, shaped(0.0), True)]
    top += [
        front.draw(body, shaped(a, b)) for a, b in ((-2.0, 0.0), (1.8, 0.0), (0.0, 2.5))
    ]
    clips = {clip.name: clip for clip in load_motion().clips}
    bottom = []
    for name, frame in POSES:
        output = shaped(0.0, 0.0, jnp.asarray(clips[name].poses_aa[frame]))
        vertices = np.asarray(output.vertices_m)
        centre = 0.5 * (vertices.min(0) + vertices.max(0))
        bottom.append(
            Camera(centre, 1.95, size_px, turn("y", -25)).draw(body, output, True)
        )
    return rows_of([top, bottom])


def hand_picture(size_px: int) -> Image.Image:
    """The flat hand from three sides, and along the first axis of finger poses."""
    hand = load_open_hand()
    forward = jax.jit(body_forward)
    flat = forward(hand, jnp.zeros(10), jnp.zeros((16, 3)))
    views = (turn("x", 90), turn("x", 0), turn("x", -90))
    top = [
        Camera([-0.09, -0.01, 0.0], 0.25, size_px, view).draw(hand, flat, True)
        for view in views
    ]
    bottom = []
    for amount in (-1.0, 0.0, 1.8):
        fingers = hand.hand_mean + amount * hand.hand_components[0]
        pose = jnp.concatenate([jnp.zeros((1, 3)), fingers.reshape(15, 3)])
        output = forward(hand, jnp.zeros(10), pose)
        camera = Camera([-0.09, -0.01, 0.0], 0.25, size_px, turn("x", 25))
        bottom.append(camera.draw(hand, output))
    return rows_of([top, bottom])


def main():
    """Read the flags and write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    body_picture(240).save(args.out / "open_body.png", optimize=True)
    hand_picture(300).save(args.out / "open_hand.png", optimize=True)


if __name__ == "__main__":
    main()
