"""What a robot body is, as data: the facts a task, a policy and a ROS node need, without a simulator.

Conventions everywhere in Omnibody: SI units, x forward, y left, z up, quaternions wxyz, angles in radians.
The *heading frame* is the world frame turned by the base's yaw and moved to the base's ground projection.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from omnibody.robots.errors import UserError

Vector3 = tuple[float, float, float]


@dataclass(frozen=True)
class Field:
    """One named array of an observation or an action, per environment (no batch axis).

    ``low`` and ``high`` bound every element, or hold one bound per element of the last axis.
    ``names`` labels the last axis and may be empty.
    """

    shape: tuple[int, ...]
    dtype: str
    unit: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        last = self.shape[-1] if self.shape else 1
        for label, bound in (("low", self.low), ("high", self.high)):
            if len(bound) not in (1, last):
                raise ValueError(f"Field.{label} needs 1 or {last} numbers for shape {self.shape}, got {len(bound)}")
        if self.names and len(self.names) != last:
            raise ValueError(f"Field.names needs {last} names for shape {self.shape}, got {self.names}")


@dataclass(frozen=True)
class IOSpec:
    """What goes into and comes out of a policy, and how often."""

    obs: dict[str, Field]
    action: Field
    rate_hz: float

    def to_json(self) -> str:
        """Serialise; ``IOSpec.from_json`` gives back an equal object."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> IOSpec:
        """Read what ``to_json`` wrote."""
        raw = json.loads(text)
        return IOSpec({k: _field(v) for k, v in raw["obs"].items()}, _field(raw["action"]), raw["rate_hz"])

    def mismatch(self, other: IOSpec) -> str:
        """Describe the first difference to ``other`` (wanted: self, came: other); empty when they agree."""
        if self.rate_hz != other.rate_hz:
            return f"rate_hz: wanted {self.rate_hz}, came {other.rate_hz}"
        if self.action.shape != other.action.shape:
            return f"action shape: wanted {self.action.shape}, came {other.action.shape}"
        for key, field in self.obs.items():
            if key not in other.obs:
                return f"observation {key!r}: wanted, but only {sorted(other.obs)} came"
            if field.shape != other.obs[key].shape:
                return f"observation {key!r} shape: wanted {field.shape}, came {other.obs[key].shape}"
        return ""


def _field(raw: dict[str, Any]) -> Field:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    return Field(**values)


@dataclass(frozen=True)
class Footprint:
    """Axis-aligned box around the body in its heading frame [m], centred on the base origin."""

    length: float
    width: float
    height: float

    @property
    def circumscribed_radius(self) -> float:
        """Radius of the smallest circle around the footprint [m]."""
        return 0.5 * math.hypot(self.length, self.width)

    @property
    def inscribed_radius(self) -> float:
        """Radius of the largest circle inside the footprint [m]."""
        return 0.5 * min(self.length, self.width)


@dataclass(frozen=True)
class Limits:
    """Bounds on the commanded twist (vx, vy, wz) in the heading frame [m/s, m/s, rad/s] and its rate.

    ``min_turning_radius`` [m] is 0 for a body that can turn in place. ``turn_centre`` is where a non-holonomic body
    cannot move sideways (x in the base frame [m], e.g. of a car's rear axle), so that its vy is -wz * turn_centre.
    """

    velocity_low: Vector3
    velocity_high: Vector3
    acceleration: Vector3
    min_turning_radius: float = 0.0
    turn_centre: float = 0.0

    @property
    def holonomic(self) -> bool:
        """Whether the body can move sideways."""
        return self.velocity_high[1] > 0.0

    def clip(self, twist: np.ndarray) -> np.ndarray:
        """Nearest allowed twist, (..., 3) -> (..., 3); a turning radius shrinks wz to |vx| / radius."""
        twist = np.minimum(np.maximum(twist, self.velocity_low), self.velocity_high)  # half of np.clip's time
        if self.min_turning_radius > 0.0:
            most = np.abs(twist[..., 0]) / self.min_turning_radius
            twist[..., 2] = np.minimum(np.maximum(twist[..., 2], -most), most)
        return twist


@dataclass(frozen=True)
class CameraMount:
    """A depth camera fixed to the base: pinhole, looking along +x turned down by ``pitch``.

    ``position`` [m] is in the base frame, ``pitch`` [rad] is positive downwards.
    """

    position: Vector3
    pitch: float
    horizontal_fov: float = math.radians(92.0)
    vertical_fov: float = math.radians(40.0)
    width: int = 64
    height: int = 16
    max_range: float = 10.0

    def pixels(self) -> np.ndarray:
        """Vectors through the pixel centres, (H * W, 3), 1 along the optical axis, in the camera's frame (x forward, y
        left, z up), row by row from the top left: times a depth they are the points seen."""
        u = np.tan(self.horizontal_fov / 2) * (1.0 - (2.0 * np.arange(self.width) + 1.0) / self.width)
        v = np.tan(self.vertical_fov / 2) * (1.0 - (2.0 * np.arange(self.height) + 1.0) / self.height)
        left, up = np.meshgrid(u, v)
        return np.stack([np.ones_like(left), left, up], -1).reshape(-1, 3)

    def into_base(self, vectors: np.ndarray, pitch_offset: float = 0.0) -> np.ndarray:
        """Vectors (P, 3) of the camera's frame turned into the base's; ``pitch_offset`` [rad] turns further down."""
        pitch = self.pitch + pitch_offset
        c, s = np.cos(pitch), np.sin(pitch)
        x, y, z = vectors.T
        return np.stack([c * x + s * z, y, -s * x + c * z], -1)

    def picture(self, rows: int) -> Field:
        """A colour picture of the field of view in ``rows`` of square pixels.

        Its numbers of rows and columns are even, as video wants.
        """
        if rows < 2:
            raise UserError(f"rgb: wanted 2 or more rows of pixels, or 0 for no picture, came {rows}")
        height, aspect = rows + rows % 2, math.tan(self.horizontal_fov / 2) / math.tan(self.vertical_fov / 2)
        return Field((height, 2 * round(height * aspect / 2), 3), "uint8", "sRGB", (0.0,), (255.0,))


@dataclass(frozen=True)
class RosInterface:
    """Topics and frames the body's driver uses by default; each can be remapped."""

    cmd_vel: str = "cmd_vel"
    odom: str = "odom"
    depth: str = "depth"
    image: str = "image"
    base_frame: str = "base_link"
    odom_frame: str = "odom"


class Body(Protocol):
    """What every body says of itself, be it a base that drives or a tool on a table.

    ``best_tier``: the most faithful simulation it has; ``license`` and ``source`` of its model.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def action(self) -> Field: ...  # noqa: D102
    @property
    def rate_hz(self) -> float: ...  # noqa: D102
    @property
    def best_tier(self) -> str: ...  # noqa: D102
    @property
    def license(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102


def mobile(body: Body) -> Embodiment:
    """The body as a mobile base; raises ``UserError`` for one that has none."""
    if isinstance(body, Embodiment):
        return body
    raise UserError(f"robot: wanted a mobile base (omnibody list), came {body.name}, a {type(body).__name__}")


@dataclass(frozen=True)
class Embodiment:
    """A robot body as a policy, a task and a driver see it.

    ``base_height`` is the height of the base origin above the ground when standing [m]; ``lag`` the first-order time
    constants of (vx, vy, wz) after a command [s], identified from the most faithful tier; ``latency`` the delay from
    observation to command [s]; ``plants`` maps a tier ("T0", "T1", "T2") to the ``"module:Class"`` that simulates it.
    ``mjcf`` is the model file or asset of a body that is not built in code, and ``wheels`` the driven joints (left,
    right) of a user's differential drive in it.
    """

    name: str
    footprint: Footprint
    limits: Limits
    camera: CameraMount
    base_height: float
    mass: float
    lag: Vector3
    plants: dict[str, str]
    license: str
    source: str
    latency: float = 0.0
    rate_hz: float = 10.0
    ros: RosInterface = RosInterface()
    mjcf: str = ""
    wheels: tuple[str, ...] = ()

    @property
    def best_tier(self) -> str:
        """The most faithful tier this body has."""
        return max(self.plants)

    @property
    def action(self) -> Field:
        """The commanded twist in the heading frame."""
        limits = self.limits
        return Field((3,), "float32", "m/s,m/s,rad/s", limits.velocity_low, limits.velocity_high, ("vx", "vy", "wz"))

    def descriptor(self) -> np.ndarray:
        """Physical facts about the body, float32 (len(DESCRIPTOR_NAMES),): what a policy is told about it."""
        low, high = self.limits.velocity_low, self.limits.velocity_high
        camera = self.camera
        facts = (
            self.footprint.length,
            self.footprint.width,
            self.footprint.height,
            low[0],
            high[0],
            high[1],
            high[2],
            *self.limits.acceleration,
            float(self.limits.holonomic),
            self.limits.min_turning_radius,
            *self.lag,
            self.latency,
            camera.position[0],
            camera.position[2] + self.base_height,
            camera.pitch,
            camera.horizontal_fov,
            camera.vertical_fov,
        )
        return np.asarray(facts, np.float32)


DESCRIPTOR_NAMES = (
    "length", "width", "height", "vx_low", "vx_high", "vy_high", "wz_high", "ax", "ay", "awz", "holonomic",
    "min_turning_radius", "lag_vx", "lag_vy", "lag_wz", "latency", "camera_forward", "camera_height", "camera_pitch",
    "camera_hfov", "camera_vfov",
)  # fmt: skip
