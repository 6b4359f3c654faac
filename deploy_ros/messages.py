"""ROS 2 messages to numpy and back, by field names alone: those of rclpy and those read from a bag both do.

Nothing here imports ROS. A message that cannot be used raises `MessageError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np

from omnibody.robots.errors import UserError
from omnibody.robots.spec import CameraMount

HEAD, POSE_BYTES = 4, 56  # of CDR: what stands before the data, which alignment does not count, and seven doubles
DEPTH_UNITS = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 1e-3)}  # numpy type and metres per unit (REP 118)
COLOURS = {"rgb8": "rgb", "bgr8": "bgr", "rgba8": "rgba", "bgra8": "bgra"}  # what the bytes of a pixel are
DEPTH_HEAD = struct.Struct("<iff")  # of compressedDepth, before the PNG: its kind, and a and b of 32FC1 = a / (n - b)
POINT_TYPES = {7: "f4", 8: "f8"}  # of a PointField


class MessageError(UserError, ValueError):
    """A message that must not reach a policy: the field, what was wanted and what came."""


def stamp(message: Any) -> float:
    """The header's time [s]."""
    return float(message.header.stamp.sec) + 1e-9 * float(message.header.stamp.nanosec)


def check_frame(name: str, came: str, frame: str) -> None:
    """Refuse a message whose frame is another than the odometry's ``frame``; either may be empty."""
    if came and frame and came != frame:
        raise MessageError(
            f"{name}.header.frame_id: wanted {frame!r}, the odometry's, came {came!r}; plan in {frame!r}, or remap odom"
            f" to an odometry in {came!r}"
        )


def pose(message: Any, name: str = "pose") -> np.ndarray:
    """A ``Pose`` as (x [m], y [m], yaw [rad]), float64 (3,)."""
    position, q = message.position, message.orientation
    place, turn = (position.x, position.y), (q.x, q.y, q.z, q.w)
    _finite(name, *place, *turn)
    norm = math.hypot(*turn)
    if abs(norm - 1.0) > 0.1:
        raise MessageError(f"{name}.orientation: wanted a unit quaternion, came one of length {norm:.3g}")
    x, y, z, w = (value / norm for value in turn)
    return np.array([*place, math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))])


def goal_pose(message: Any) -> np.ndarray:
    """A ``PoseStamped`` as (x [m], y [m], yaw [rad]) in its header's frame."""
    return pose(message.pose, "goal_pose.pose")


def odometry(message: Any) -> tuple[np.ndarray, np.ndarray]:
    """An ``Odometry`` as pose (x, y, yaw) in its header's frame and twist (vx, vy, wz) in its child's, float64 (3,)."""
    return pose(message.pose.pose, "odom.pose"), twist(message.twist.twist, "odom.twist")


def twist(message: Any, name: str) -> np.ndarray:
    """A ``Twist`` as (vx [m/s], vy [m/s], wz [rad/s]), float64 (3,)."""
    values = (message.linear.x, message.linear.y, message.angular.z)
    _finite(name, *values)
    return np.array(values, np.float64)


def path(message: Any) -> tuple[str, np.ndarray]:
    """Frame and points (K, 2) [m] of a ``Path``; K may be 0."""
    return message.header.frame_id, _points([(p.pose.position.x, p.pose.position.y) for p in message.poses])


def serialized_path(data: bytes) -> tuple[str, np.ndarray]:
    """As ``path``, of a ``Path`` in CDR (OMG DDSI-RTPS 2.5, 10.2), as it travels.

    rclpy makes Python objects of every pose, which takes milliseconds for a planner's hundreds; this takes 5 % of it.
    """
    order = "<" if data[1] & 1 else ">"
    number, place = struct.Struct(f"{order}I").unpack_from, struct.Struct(f"{order}2d").unpack_from
    try:
        frame, at = _string(data, HEAD + 8, number)
        (count,) = number(data, at)
        at, points = at + 4, []
        for _ in range(count):
            _, at = _string(data, at + 8, number)
            at = HEAD + _aligned(at - HEAD, 8)
            points.append(place(data, at))
            at += POSE_BYTES
    except (struct.error, UnicodeDecodeError) as error:
        raise MessageError(
            f"plan: wanted a serialized nav_msgs/Path, came {len(data)} bytes of another kind"
        ) from error
    return frame, _points(points)


def depth(message: Any, camera: CameraMount) -> np.ndarray:
    """A depth ``Image`` that spans the camera's field of view as (height, width) float32 [m], nearest pixel.

    Or a ``CompressedImage`` of compressed_depth_image_transport. What is beyond the range or cannot be measured (0,
    NaN, inf) reads ``max_range``, as in the simulator. An image in which nothing at all was measured is refused: the
    camera is covered or broken.
    """
    whole, unit = _compressed_depth(message) if hasattr(message, "format") else _depth(message)
    image = whole[_nearest(whole.shape[0], whole.shape[1], camera.height, camera.width)].astype(np.float64)
    unmeasured = _unmeasured(image)
    if unmeasured.all() and _unmeasured(whole).all():
        raise MessageError(f"depth.data: wanted distances [m], came {whole.size} pixels without any (0 or NaN)")
    image[unmeasured] = np.inf
    return np.minimum(image * unit, camera.max_range).astype(np.float32)


def image(message: Any, height: int, width: int) -> np.ndarray:
    """A colour ``Image`` that spans the camera's field of view as RGB (height, width, 3) uint8, nearest pixel.

    Or a ``CompressedImage`` of compressed_image_transport, a JPEG or PNG.
    """
    whole = _compressed_image(message) if hasattr(message, "format") else _colours(message)
    return np.ascontiguousarray(whole[_nearest(whole.shape[0], whole.shape[1], height, width)])


def scan(message: Any, base: str) -> np.ndarray:
    """A ``LaserScan`` in frame ``base`` as ranges [m] and angles [rad] (R, 2), float64; out of range reads inf."""
    _check_base("scan", message.header.frame_id, base)
    ranges = np.array(message.ranges, np.float64)
    _finite("scan.angles", message.angle_min, message.angle_increment)
    if len(ranges) == 0 or np.isnan(ranges).all():
        raise MessageError(f"scan.ranges: wanted distances [m], came {len(ranges)} without any")
    inside = (ranges >= message.range_min) & (ranges <= message.range_max)
    angles = message.angle_min + message.angle_increment * np.arange(len(ranges))
    return np.stack((np.where(inside, ranges, np.inf), angles), axis=1)


def points(message: Any, base: str) -> np.ndarray:
    """The finite points of a ``PointCloud2`` in frame ``base``, (P, 3) [m], float64; P may be 0."""
    _check_base("points", message.header.frame_id, base)
    fields = {f.name: f for f in message.fields}
    if not all(axis in fields and fields[axis].datatype in POINT_TYPES for axis in "xyz"):
        came = ", ".join(f"{name} of type {f.datatype}" for name, f in fields.items()) or "none"
        raise MessageError(f"points.fields: wanted x, y and z of type 7 (FLOAT32) or 8 (FLOAT64), came {came}")
    order = ">" if message.is_bigendian else "<"
    kinds = {axis: np.dtype(order + POINT_TYPES[fields[axis].datatype]) for axis in "xyz"}
    height, width, step, data = int(message.height), int(message.width), int(message.point_step), _bytes(message)
    row = int(message.row_step) if height > 1 else width * step  # some drivers leave it 0 in a single row
    if any(fields[axis].offset + kinds[axis].itemsize > step for axis in "xyz"):
        raise MessageError(f"points.point_step: wanted room for x, y and z, came {step} bytes")
    if row < width * step or len(data) < height * row:
        raise MessageError(
            f"points.data: wanted {height} rows of {row} bytes, {width} points of {step} each, came {len(data)} bytes"
        )
    if height * width == 0:
        return np.zeros((0, 3))
    out = np.empty((height, width, 3))
    for k, axis in enumerate("xyz"):
        out[..., k] = np.ndarray((height, width), kinds[axis], data, fields[axis].offset, (row, step))
    return out[np.isfinite(out).all(axis=2)]


def fill_twist(message: Any, values: np.ndarray) -> None:
    """Write (vx, vy, wz) into a ``Twist``; give a ``TwistStamped``'s own ``twist``. NaN is never written."""
    vx, vy, wz = values.tolist()
    _finite("command", vx, vy, wz)
    message.linear.x, message.linear.y, message.angular.z = vx, vy, wz


def fill_pose(message: Any, x: float, y: float, yaw: float) -> None:
    """Write a ground pose [m, m, rad] into a ``Pose``; give a ``PoseStamped``'s own ``pose``."""
    message.position.x, message.position.y = float(x), float(y)
    message.orientation.z, message.orientation.w = math.sin(yaw / 2.0), math.cos(yaw / 2.0)


def _string(data: bytes, at: int, number: Any) -> tuple[str, int]:
    """A CDR string that begins at ``at``, and where the four-byte number behind it does."""
    (length,) = number(data, at)
    return data[at + 4 : at + 3 + length].decode(), HEAD + _aligned(at + 4 + length - HEAD, 4)


def _aligned(at: int, size: int) -> int:
    return -(-at // size) * size


def _check_base(name: str, came: str, base: str) -> None:
    """Refuse a frame other than the base's, of whatever robot: no tf is asked."""
    if came and came.rpartition("/")[2] != base:
        raise MessageError(
            f"{name}.header.frame_id: wanted {base!r}, the base's, came {came!r}; publish it in {base!r}, or remap"
            f" {name} to an unused name to drive without"
        )


def _bytes(message: Any) -> np.ndarray:
    """The ``data`` of a message, whatever holds them."""
    return np.frombuffer(message.data, np.uint8)


def _depth(message: Any) -> tuple[np.ndarray, float]:
    """An ``Image`` (height, width) of depth and metres per unit."""
    _check_encoding("depth", message.encoding, DEPTH_UNITS)
    kind, unit = DEPTH_UNITS[message.encoding]
    return _pixels("depth", message, kind, 1)[..., 0], unit


def _colours(message: Any) -> np.ndarray:
    """An ``Image`` (height, width, 3) of RGB."""
    _check_encoding("image", message.encoding, COLOURS)
    channels = COLOURS[message.encoding]
    pixels = _pixels("image", message, "u1", len(channels))[..., :3]
    return pixels if channels.startswith("rgb") else pixels[..., ::-1]


def _check_encoding(name: str, came: str, known: Iterable[str]) -> None:
    if came not in known:
        raise MessageError(f"{name}.encoding: wanted one of {', '.join(known)}, came {came!r}")


def _pixels(name: str, message: Any, kind: str, channels: int) -> np.ndarray:
    """An ``Image`` (height, width, channels) of numpy's ``kind``, whatever its row step and byte order."""
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    height, width, step, data = int(message.height), int(message.width), int(message.step), _bytes(message)
    pixel = channels * dtype.itemsize
    if min(height, width) < 1 or step < width * pixel:
        raise MessageError(
            f"{name}.step: wanted at least one pixel and {width * pixel} bytes a row, came {height} x {width} pixels"
            f" and {step} bytes"
        )
    if len(data) != height * step:
        raise MessageError(f"{name}.data: wanted {height} rows of {step} bytes, came {len(data)} bytes")
    return np.ndarray((height, width, channels), dtype, data, strides=(step, pixel, dtype.itemsize))


def _compressed_image(message: Any) -> np.ndarray:
    """A ``CompressedImage`` (height, width, 3) of RGB."""
    how = message.format.rpartition(";")[2].split()  # "jpeg", or "rgb8; jpeg compressed bgr8"
    if how[:1] not in (["jpeg"], ["png"]):
        raise MessageError(f"image.format: wanted jpeg or png, came {message.format!r}")
    data = bytes(message.data)
    mode, pixels = _decoded(data, f"image.data: wanted a JPEG or PNG, came {len(data)} other bytes", ["JPEG", "PNG"])
    if mode not in ("RGB", "RGBA"):
        raise MessageError(f"image.data: wanted a picture in colours, RGB or RGBA, came one of mode {mode}")
    return pixels[..., :3]


def _compressed_depth(message: Any) -> tuple[np.ndarray, float]:
    """A ``CompressedImage`` (height, width) of depth and metres per unit."""
    encoding, _, how = (part.strip() for part in message.format.partition(";"))
    if encoding not in DEPTH_UNITS or how not in ("compressedDepth", "compressedDepth png"):
        wanted = " or ".join(f"'{encoding}; compressedDepth png'" for encoding in DEPTH_UNITS)
        raise MessageError(f"depth.format: wanted {wanted}, came {message.format!r}")
    data = bytes(message.data)
    wrong = f"depth.data: wanted {DEPTH_HEAD.size} bytes and a PNG, came {len(data)} others"
    _, image = _decoded(data[DEPTH_HEAD.size :], wrong)
    if image.ndim != 2:
        raise MessageError(f"depth.data: wanted a PNG of one channel, came one of shape {image.shape}")
    if encoding == "32FC1":
        _, a, b = DEPTH_HEAD.unpack_from(data)
        image = np.divide(a, image - b, out=np.zeros(image.shape), where=image > 0)
    return image, DEPTH_UNITS[encoding][1]


def _decoded(data: bytes, wrong: str, formats: list[str] | None = None) -> tuple[str, np.ndarray]:
    """Pillow's mode and the pixels of a picture's file; raises ``MessageError`` of ``wrong`` for other bytes."""
    from PIL import Image  # most cameras do not compress

    try:
        picture = Image.open(BytesIO(data), formats=formats)
        return picture.mode, np.asarray(picture)
    except Exception as error:  # of a spoilt PNG Pillow raises a SyntaxError, a ValueError and whatever else
        raise MessageError(wrong) from error


@lru_cache
def _nearest(height: int, width: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows (rows, 1) and columns (1, columns) of an image of (height, width) lie nearest to a smaller one's."""
    row, column = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
    return row.astype(int)[:, None], column.astype(int)[None]


def _unmeasured(image: np.ndarray) -> np.ndarray:
    return np.isnan(image) | (image <= 0)


def _points(points: list[tuple[float, float]]) -> np.ndarray:
    out = np.array(points, np.float64).reshape(-1, 2)
    if not np.isfinite(out).all():
        raise MessageError(f"plan.poses: wanted finite numbers, came {np.round(out, 3).ravel()[:8].tolist()}")
    return out


def _finite(name: str, *values: float) -> None:
    if not all(map(math.isfinite, values)):
        raise MessageError(f"{name}: wanted finite numbers, came {[round(value, 3) for value in values]}")
