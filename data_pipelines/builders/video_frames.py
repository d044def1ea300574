"""Frames of video files, where the decoder is installed."""

import importlib.util
import io
from collections.abc import Iterable

from data_pipelines.builders.picture_files import png
from data_pipelines.builders.published_dataset import PublishedDataset


def can_decode() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def _need_decoder(source: PublishedDataset, path: str) -> None:
    if not can_decode():
        raise source.wrong(
            path,
            "extracted frames beside the video, or a decoder "
            "(pip install 'hmr_jax[video]')",
            "neither",
        )


def frames(
    source: PublishedDataset, path: str, numbers: Iterable[int]
) -> dict[int, bytes]:
    """Some frames of a video as PNG files.

    Args:
        source: reads the video, and is named in errors.
        path: of the video.
        numbers: 0-based.

    Returns:
        Frame number -> PNG.

    Raises:
        RecordError: no decoder, no such video, or fewer frames than asked for.
    """
    _need_decoder(source, path)
    import av

    wanted = set(numbers)

    def decode(data: bytes) -> dict[int, bytes]:
        found = {}
        with av.open(io.BytesIO(data)) as video:
            for number, frame in enumerate(video.decode(video=0)):
                if number in wanted:
                    found[number] = png(frame.to_ndarray(format="rgb24"))
                if len(found) == len(wanted):
                    break
        return found

    found = source.parse(path, "a video", decode, is_label=False)
    if missing := wanted - found.keys():
        raise source.wrong(path, f"frame {min(missing)}", "the end of the video")
    return found


def frames_per_second(source: PublishedDataset, path: str) -> float:
    """The rate that a video says it has.

    Args:
        source: reads the video, and is named in errors.
        path: of the video.

    Raises:
        RecordError: no decoder, or no such video.
    """
    _need_decoder(source, path)
    import av

    def rate(data: bytes) -> float:
        with av.open(io.BytesIO(data)) as video:
            return float(video.streams.video[0].average_rate or 0)

    return source.parse(path, "a video", rate, is_label=False)
