"""RGB frames to and from H.264 in MP4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

PIXEL_FORMAT = "yuv420p"
QUALITY = "23"  # CRF
KEYFRAME_INTERVAL = "2"  # frames; short, so that a random frame is decoded fast (as LeRobot does)


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Encode frames (L, H, W, 3) uint8; frame k is shown at k / fps seconds. H and W must be even."""
    _, height, width, _ = frames.shape
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": QUALITY, "g": KEYFRAME_INTERVAL})
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_video(path: Path) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 of a file, in order."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
