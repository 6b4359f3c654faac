"""ROS 2 messages to numpy and back, by field names alone: those of rclpy and those read from a bag both do.

Nothing here imports ROS. A message that cannot be used raises `MessageError`.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from omnibody.robots.errors import UserError
from omnibody.robots.spec import CameraMount

HEAD, POSE_BYTES = 4, 56  # of CDR: what stands before the data, which alignment does not count, and seven doubles
DEPTH_UNITS = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 1e-3)}  # numpy type and metres per unit (REP 118)


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
    values = np.array([position.x, position.y, q.x, q.y, q.z, q.w], np.float64)
    _finite(name, values)
    norm = float(np.linalg.norm(values[2:]))
    if abs(norm - 1.0) > 0.1:
        raise MessageError(f"{name}.orientation: wanted a unit quaternion, came one of length {norm:.3g}")
    x, y, z, w = values[2:] / norm
    return np.array([*values[:2], math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))])


def goal_pose(message: Any) -> np.ndarray:
    """A ``PoseStamped`` as (x [m], y [m], yaw [rad]) in its header's frame."""
    return pose(message.pose, "goal_pose.pose")


def odometry(message: Any) -> tuple[np.ndarray, np.ndarray]:
    """An ``Odometry`` as pose (x, y, yaw) in its header's frame and twist (vx, vy, wz) in its child's, float64 (3,)."""
    return pose(message.pose.pose, "odom.pose"), twist(message.twist.twist, "odom.twist")


def twist(message: Any, name: str) -> np.ndarray:
    """A ``Twist`` as (vx [m/s], vy [m/s], wz [rad/s]), float64 (3,)."""
    values = np.array([message.linear.x, message.linear.y, message.angular.z], np.float64)
    _finite(name, values)
    return values


def path(message: Any) -> np.ndarray:
    """A ``Path`` as points (K, 2) [m] in its header's frame; K may be 0."""
    points = [(p.pose.position.x, p.pose.position.y) for p in message.poses]
    out = np.array(points, np.float64).reshape(-1, 2)
    _finite("plan.poses", out)
    return out


def serialized_path(data: bytes) -> tuple[str, np.ndarray]:
    """Frame and points (K, 2) [m] of a ``Path`` in CDR (OMG DDSI-RTPS 2.5, 10.2), as it travels.

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
    out = np.array(points, np.float64).reshape(-1, 2)
    _finite("plan.poses", out)
    return frame, out


def depth(message: Any, camera: CameraMount) -> np.ndarray:
    """A depth ``Image`` that spans the camera's field of view as (height, width) float32 [m], nearest pixel.

    What is beyond the range or cannot be measured (0, NaN, inf) reads ``max_range``, as in the simulator. An image
    in which nothing at all was measured is refused: the camera is covered or broken.
    """
    image = _pixels(message)
    unmeasured = np.isnan(image) | (image <= 0.0)
    if unmeasured.all():
        raise MessageError(f"depth.data: wanted distances [m], came {image.size} pixels without any (0 or NaN)")
    rows = ((np.arange(camera.height) + 0.5) * image.shape[0] / camera.height).astype(int)
    columns = ((np.arange(camera.width) + 0.5) * image.shape[1] / camera.width).astype(int)
    image = np.where(unmeasured, np.inf, image)[np.ix_(rows, columns)]
    return np.minimum(image, camera.max_range).astype(np.float32)


def scan(message: Any) -> tuple[np.ndarray, np.ndarray]:
    """A ``LaserScan`` as ranges [m] (R,) and angles [rad] (R,), float64; what is outside its range reads inf."""
    ranges = np.array(message.ranges, np.float64)
    _finite("scan.angles", np.array([message.angle_min, message.angle_increment], np.float64))
    if len(ranges) == 0 or np.isnan(ranges).all():
        raise MessageError(f"scan.ranges: wanted distances [m], came {len(ranges)} without any")
    inside = (ranges >= message.range_min) & (ranges <= message.range_max)
    return np.where(inside, ranges, np.inf), message.angle_min + message.angle_increment * np.arange(len(ranges))


def fill_twist(message: Any, values: np.ndarray) -> None:
    """Write (vx, vy, wz) into a ``Twist``; give a ``TwistStamped``'s own ``twist``. NaN is never written."""
    _finite("command", values)
    message.linear.x, message.linear.y, message.angular.z = (float(v) for v in values)


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


def _pixels(message: Any) -> np.ndarray:
    """The image (height, width) float64 [m], whatever its row step and byte order."""
    if message.encoding not in DEPTH_UNITS:
        raise MessageError(f"depth.encoding: wanted one of {', '.join(DEPTH_UNITS)}, came {message.encoding!r}")
    kind, unit = DEPTH_UNITS[message.encoding]
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    height, width, step = int(message.height), int(message.width), int(message.step)
    if min(height, width) < 1 or step < width * dtype.itemsize:
        raise MessageError(
            f"depth.step: wanted at least one pixel and {width * dtype.itemsize} bytes a row, came {height} x {width}"
            f" pixels and {step} bytes"
        )
    data = np.frombuffer(bytes(message.data), np.uint8)
    if len(data) != height * step:
        raise MessageError(f"depth.data: wanted {height} rows of {step} bytes, came {len(data)} bytes")
    rows = np.ascontiguousarray(data.reshape(height, step)[:, : width * dtype.itemsize])
    return rows.view(dtype).astype(np.float64) * unit


def _finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise MessageError(f"{name}: wanted finite numbers, came {np.round(values, 3).ravel()[:8].tolist()}")
