"""Frames of video files, where the decoder is installed."""

import importlib.util
import io
from collections.abc import Iterable

from data_pipelines.builders.picture_files import png
from data_pipelines.builders.raw import RawSource


def can_decode() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def _need_decoder(source: RawSource, path: str) -> None:
    if not can_decode():
        raise source.wrong(
            path,
            "extracted frames beside the video, or a decoder "
            "(pip install 'hmr_jax[video]')",
            "neither",
        )


def frames(source: RawSource, path: str, numbers: Iterable[int]) -> dict[int, bytes]:
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
    found = {}
    data = source.read_bytes(path, "a video", is_label=False)
    try:
        with av.open(io.BytesIO(data)) as video:
            for number, frame in enumerate(video.decode(video=0)):
                if number in wanted:
                    found[number] = png(frame.to_ndarray(format="rgb24"))
                if len(found) == len(wanted):
                    break
    except (av.FFmpegError, IndexError) as error:
        raise source.wrong(path, "a video", f"{len(data)} bytes ({error})") from error
    if missing := wanted - found.keys():
        raise source.wrong(path, f"frame {min(missing)}", "the end of the video")
    return found


def frames_per_second(source: RawSource, path: str) -> float:
    """The rate that a video says it has.

    Args:
        source: reads the video, and is named in errors.
        path: of the video.

    Raises:
        RecordError: no decoder, or no such video.
    """
    _need_decoder(source, path)
    import av

    data = source.read_bytes(path, "a video", is_label=False)
    try:
        with av.open(io.BytesIO(data)) as video:
            return float(video.streams.video[0].average_rate or 0)
    except (av.FFmpegError, IndexError) as error:
        raise source.wrong(path, "a video", f"{len(data)} bytes ({error})") from error
