"""The peer of ``input_pipeline.py``: PyTorch's DataLoader with OpenCV's crops.

It needs torch, OpenCV, Pillow and numpy alone, and does what the originals' loaders do:
read the file, draw the augmentation, warp with OpenCV, change the colour, normalise,
channels first. It is as quick as plain code of this kind is: pictures are warped as
bytes, and OpenCV keeps to one thread in each worker.
"""

import argparse
import json
import math
import os
import pathlib
import time

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance

CLIP = 16
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255
SIZE = {"int_image": 224, "int_clips": 224}


def affine(centre, side, turn, size):
    """Image to crop, 2 x 3."""
    scale = size / side
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    x, y = centre
    half = size / 2
    return np.array(
        [[cos, sin, half - cos * x - sin * y], [-sin, cos, half + sin * x - cos * y]],
        np.float32,
    )


def normal(limit):
    """A standard normal number, cut off."""
    return float(np.clip(np.random.standard_normal(), -limit, limit))


class Loader(torch.utils.data.Dataset):
    """The training samples of one system."""

    def __init__(self, system, folder):
        self.system = system
        self.files = sorted((folder / "files").glob("*.jpg"))
        labels = np.load(folder / "labels.npz")
        self.boxes, self.keypoints = labels["boxes"], labels["keypoints"]

    def __len__(self):
        return len(self.files) // (CLIP if self.system == "int_clips" else 1)

    def read(self, index):
        """One file as red, green, blue."""
        return cv2.cvtColor(cv2.imread(str(self.files[index])), cv2.COLOR_BGR2RGB)

    def placement(self, index, image):
        """Mirror and crop of the systems that draw scale and rotation normally."""
        x, y, w, h = self.boxes[index]
        deviation = 0.3 if self.system == "ikol" else 0.25
        side = max(w, h) * 1.25 * (1 + deviation * normal(1))
        turn = math.radians(30) * normal(2) if np.random.random() < 0.6 else 0.0
        centre = [x + w / 2, y + h / 2]
        flip = self.system != "i2l_hand" and np.random.random() < 0.5
        points = self.keypoints[index].copy()
        if flip:
            image = np.ascontiguousarray(image[:, ::-1])
            centre[0] = image.shape[1] - 1 - centre[0]
            points[:, 0] = image.shape[1] - 1 - points[:, 0]
        matrix = affine(centre, side, turn, 256)
        points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        return image, matrix, points

    def occlude(self, image, index):
        """A rectangle of noise in the person's square."""
        x, y, w, h = self.boxes[index]
        area = np.random.uniform(0, 0.3) * w * h
        ratio = np.random.uniform(0.5, 2.0)
        height, width = int(math.sqrt(area * ratio)), int(math.sqrt(area / ratio))
        top = int(np.clip(y + np.random.random() * (h - height), 0, None))
        left = int(np.clip(x + np.random.random() * (w - width), 0, None))
        part = image[top : top + height, left : left + width]
        part[...] = np.random.randint(0, 256, part.shape, np.uint8)

    def single(self, index):
        """IKOL's, I2L-MeshNet's and pose_hg's samples."""
        image = self.read(index)
        if self.system == "ikol":
            self.occlude(image, index)
        image, matrix, points = self.placement(index, image)
        crop = cv2.warpAffine(image, matrix, (256, 256), flags=cv2.INTER_LINEAR)
        crop = crop.astype(np.float32)
        if self.system != "pose_hg":
            crop *= np.random.uniform(0.8, 1.2, 3).astype(np.float32)
            np.clip(crop, 0, 255, out=crop)
        if self.system.startswith("i2l"):
            crop /= 255
        else:
            crop = (crop - MEAN) / DEVIATION
        sample = {"image": crop.transpose(2, 0, 1).copy(), "points": points}
        if self.system == "pose_hg":
            sample["heat"] = self.heatmaps(points / 4)
        return sample

    @staticmethod
    def heatmaps(points):
        """Gaussians of 13 x 13 pixels."""
        maps = np.zeros((len(points), 64, 64), np.float32)
        axis = np.arange(-6, 7)
        patch = np.exp(-(axis[:, None] ** 2 + axis**2) / 8)
        for j, (x, y) in enumerate(points[:, :2].astype(int)):
            left, top = max(0, x - 6), max(0, y - 6)
            right, bottom = min(64, x + 7), min(64, y + 7)
            if left < right and top < bottom:
                maps[j, top:bottom, left:right] = patch[
                    top - y + 6 : bottom - y + 6, left - x + 6 : right - x + 6
                ]
        return maps

    def frames(self, indices, jitter):
        """INT's samples: one augmentation for all frames."""
        scale, shift = 1.3, np.zeros(2)
        if np.random.random() < 0.2:
            scale = np.random.uniform(0.7, 1.3)
            shift = np.random.uniform(-1, 1, 2) * (1.3 - scale) / 2
        flip, end = np.random.random() < 0.5, np.random.randint(2)
        factors, order = np.random.uniform(0.7, 1.3, 3), np.random.permutation(4)
        turn = int(np.random.uniform(-0.3, 0.3) * 255) % 256
        images, points = [], []
        for index in indices:
            x, y, w, h = self.boxes[index]
            centre = [x + w / 2 + w * shift[0], y + h / 2 + h * shift[1]]
            matrix = affine(centre, w * scale, 0.0, 224)
            crop = cv2.warpAffine(
                self.read(index), matrix, (224, 224), flags=cv2.INTER_LINEAR
            )
            if jitter:
                crop = coloured(crop, factors, turn, order)
            if np.random.random() < 0.3:
                lines = int(224 * np.random.uniform(0, 0.7))
                crop = crop.copy()
                if end:
                    crop[224 - lines :] = 0
                else:
                    crop[:lines] = 0
            if flip:
                crop = crop[:, ::-1]
            crop = (crop.astype(np.float32) - MEAN) / DEVIATION
            images.append(crop.transpose(2, 0, 1))
            moved = self.keypoints[index].copy()
            moved[:, :2] = moved[:, :2] @ matrix[:, :2].T + matrix[:, 2]
            points.append(moved)
        return {"image": np.stack(images), "points": np.stack(points)}

    def __getitem__(self, index):
        if self.system == "int_clips":
            return self.frames(range(index * CLIP, (index + 1) * CLIP), True)
        if self.system == "int_image":
            return self.frames([index], False)
        return self.single(index)


def coloured(crop, factors, turn, order):
    """Four changes of colour by Pillow."""
    image = Image.fromarray(crop)
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind in order:
        if kind < 3:
            image = kinds[kind](image).enhance(factors[kind])
            continue
        hue, saturation, value = image.convert("HSV").split()
        moved = np.asarray(hue, np.uint8) + np.uint8(turn)
        parts = (Image.fromarray(moved), saturation, value)
        image = Image.merge("HSV", parts).convert("RGB")
    return np.asarray(image)


def seeded(worker):
    """Another stream of random numbers in each worker."""
    np.random.seed(worker)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def main():
    """Print images/s as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--system")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seconds", type=float)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    clip = CLIP if arguments.system == "int_clips" else 1
    loader = torch.utils.data.DataLoader(
        Loader(arguments.system, arguments.data),
        batch_size=max(1, arguments.batch // clip),
        shuffle=True,
        num_workers=cores,
        drop_last=True,
        persistent_workers=True,
        prefetch_factor=4,
        worker_init_fn=seeded,
    )

    def endless():
        while True:
            yield from loader

    batches = endless()
    for _ in range(4 * cores):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < arguments.seconds or count < 3:
        image = next(batches)["image"]
        count += math.prod(image.shape[:-3])
    elapsed = time.perf_counter() - start
    print(json.dumps({"images_per_s": count / elapsed}))


if __name__ == "__main__":
    main()
