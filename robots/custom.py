"""A user's own MJCF or URDF as a body: measured, and driven as a differential, holonomic or Ackermann base.

T0 and T1 move the measured footprint. A differential drive whose two wheel joints are named has T2 as well: there the
tyres are replaced by round ones of the measured radius, the motors are sized for the stated acceleration, and every
other part slides without friction (casters); joints without a wheel stay passive, as the file has them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from omnibody.robots.carrier import DifferentialDrive
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.identify import identify, run
from omnibody.robots.plant import GROUP_ROBOT, GROUP_ROBOT_VISUAL
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits
from omnibody.robots.wheels import WHEEL_COLOUR, WHEEL_FRICTION, TwistRamp, WheeledPlant, add_speed_servo

BASES = ("differential", "holonomic", "ackermann")
SERVO_TIME = 0.04  # time constant of the wheel speed servos [s]
MOST_TILT = 0.1  # of a body that stands on its wheels [rad]
ROTOR_SHARE = 0.1  # of the body's inertia at the wheels that the rotors have


@dataclass
class CustomRobotCfg:
    """A body on disk. ``wheels`` names its driven joints (or their actuators), left before right.

    A legged body counts as holonomic. ``side_speed`` is used by holonomic bases only, ``turning_radius`` by Ackermann
    ones only; there ``wheels`` may name the rear wheels. ``lag`` holds where no T2 exists to identify it from.
    """

    mjcf: str  # MJCF or URDF file of a body of your own, in place of a name
    base: str  # how it moves: differential, holonomic (legs too) or ackermann
    wheels: list[str] = field(default_factory=list)  # driven joints or actuators, left and right; they make its T2
    name: str = ""  # what reports call it; the file's name by default
    speed: float = 1.0  # most forwards [m/s]
    reverse_speed: float = 0.3  # most backwards [m/s]
    side_speed: float = 0.3  # most sideways, of a holonomic base [m/s]
    turn_rate: float = 1.0  # most about the vertical [rad/s]
    acceleration: float = 1.5  # most along the floor [m/s^2]
    turn_acceleration: float = 3.0  # most about the vertical [rad/s^2]
    turning_radius: float = 0.6  # least, of an ackermann base [m]
    lag: float = 0.1  # time constant after a command, without a T2 to identify it from [s]
    camera_height: float = 0.35  # above the floor [m]
    camera_forward: float = 0.2  # of the base origin [m]
    camera_pitch: float = 0.0  # downwards [rad]

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise unknown("robot.base", self.base, BASES)
        for key in ("speed", "turn_rate", "acceleration", "turn_acceleration", "turning_radius", "lag"):
            if getattr(self, key) <= 0.0:
                raise UserError(f"robot.{key}: wanted a number above 0, came {getattr(self, key)}")
        if len(self.wheels) not in (0, 2):
            raise UserError(f"robot.wheels: wanted two joints, left and right, came {list(self.wheels)}")

    def reference(self) -> str:
        """This body as text (JSON), which stands where a robot's name may stand: see `load_robot`."""
        return json.dumps(dataclasses.asdict(self))

    def build(self) -> Embodiment:
        """Measure the file and give its body; raises ``UserError`` with one line for a file that will not do."""
        path = str(Path(self.mjcf).expanduser().resolve())
        file = read(path)
        names = tuple(_joint(file, name) for name in self.wheels)
        body = body_alone(file, path)
        size = measure(body)
        wheels = [measure_wheel(body, name) for name in names]
        if wheels and wheels[0].y <= wheels[1].y:
            raise UserError(f"robot.wheels: wanted left before right, came {names}; swap them")
        surrogate = "omnibody.robots.surrogate"
        embodiment = Embodiment(
            name=self.name or Path(path).stem,
            footprint=size.footprint,
            limits=self._limits(turn_centre=sum(wheel.x for wheel in wheels) / max(len(wheels), 1)),
            camera=CameraMount((self.camera_forward, 0.0, self.camera_height - size.base_height), self.camera_pitch),
            base_height=size.base_height,
            mass=size.mass,
            lag=(self.lag, self.lag, self.lag),
            plants={"T0": f"{surrogate}:KinematicPlant", "T1": f"{surrogate}:ServoPlant"},
            license="the user's",
            source=path,
            mjcf=path,
            wheels=names,
        )
        return _with_wheels(embodiment) if self.base == "differential" and wheels else embodiment

    def _limits(self, turn_centre: float) -> Limits:
        holonomic, car = self.base == "holonomic", self.base == "ackermann"
        side = self.side_speed if holonomic else 0.0
        return Limits(
            velocity_low=(-self.reverse_speed, 0.0 - side, -self.turn_rate),
            velocity_high=(self.speed, side, self.turn_rate),
            acceleration=(self.acceleration, self.acceleration if holonomic else 0.0, self.turn_acceleration),
            min_turning_radius=self.turning_radius if car else 0.0,
            turn_centre=0.0 if holonomic else turn_centre,
        )


def from_mjcf(path: str, base: str, wheels: tuple[str, ...] = ()) -> Embodiment:
    """The body in an MJCF or URDF file, with the default limits and camera of `CustomRobotCfg`."""
    return CustomRobotCfg(path, base, list(wheels)).build()


@dataclass(frozen=True)
class FileBody:
    """A file's robot alone, and its rest pose: qpos (nq,) of the file's first keyframe, if it has one."""

    path: str
    spec: mujoco.MjSpec
    keyframe: np.ndarray

    def rest(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The compiled body in its rest pose."""
        try:
            model = self.spec.compile()
        except ValueError as error:
            raise UserError(f"robot.mjcf: {self.path}: {_one_line(error)}") from error
        data = mujoco.MjData(model)
        if len(self.keyframe) == model.nq:
            data.qpos[:] = self.keyframe
        mujoco.mj_kinematics(model, data)
        return model, data


@dataclass(frozen=True)
class BodySize:
    """What was measured at the file's rest pose: ``base_height`` [m] of the base origin over the lowest point."""

    footprint: Footprint
    base_height: float
    mass: float


@dataclass(frozen=True)
class Wheel:
    """A wheel in the base frame: where it is [m], its size [m], and ``sign``, -1 if its joint turns about -y.

    ``centre`` (3,) [m] and ``axis`` (3,) are in the frame of its own body.
    """

    x: float
    y: float
    radius: float
    width: float
    sign: float
    centre: np.ndarray
    axis: np.ndarray


def read(path: str) -> mujoco.MjSpec:
    """The file as it is."""
    if not Path(path).is_file():
        raise UserError(f"robot.mjcf: no file {path}")
    try:
        return mujoco.MjSpec.from_file(path)
    except ValueError as error:
        raise UserError(f"robot.mjcf: {path}: {_one_line(error)}") from error


def body_alone(spec: mujoco.MjSpec, path: str) -> FileBody:
    """Make a file's spec the robot alone: root body ``base`` on a free joint, no world, actuators, sensors or keys."""
    keyframe = np.array(spec.keys[0].qpos) if spec.keys else np.zeros(0)
    for part in (
        *spec.actuators, *spec.sensors, *spec.keys, *spec.excludes, *spec.pairs,
        *spec.worldbody.geoms, *spec.worldbody.lights, *spec.worldbody.cameras, *spec.worldbody.sites,
    ):  # fmt: skip
        spec.delete(part)
    roots = list(spec.worldbody.bodies)
    if len(roots) != 1:
        raise UserError(f"robot.mjcf: {path}: wanted one root body, the base, came {[body.name for body in roots]}")
    _free(spec, roots[0], path)
    for geom in spec.geoms:
        collides = bool(geom.contype or geom.conaffinity)
        geom.contype, geom.conaffinity = 0, int(collides)
        geom.group = GROUP_ROBOT if collides else GROUP_ROBOT_VISUAL
        geom.condim, geom.priority = 1, 1
    return FileBody(path, spec, keyframe)


def _free(spec: mujoco.MjSpec, root: mujoco.MjsBody, path: str) -> None:
    """Name the root ``base`` and make sure that it can go anywhere."""
    joints = list(root.joints)
    if not joints:
        root.add_freejoint()
    elif joints[0].type != mujoco.mjtJoint.mjJNT_FREE:
        raise UserError(
            f"robot.mjcf: {path}: the base {root.name!r} hangs on joint {joints[0].name!r}; "
            "wanted a free joint, or none (then it gets one)"
        )
    other = spec.body("base")
    if root.name != "base" and other is not None:
        other.name = f"{root.name}_base"
    root.name = "base"


def measure(body: FileBody) -> BodySize:
    """Size a body up by the boxes around its collision geoms (all geoms, if none collides) in its rest pose."""
    model, data = body.rest()
    solid = np.flatnonzero(model.geom_conaffinity) if model.geom_conaffinity.any() else np.arange(model.ngeom)
    if len(solid) == 0:
        raise UserError(f"robot.mjcf: {body.path}: the body has no geom to measure or to collide with")
    low, high = _extent(model, data, solid)
    length, width = 2.0 * np.maximum(np.abs(low), np.abs(high))[:2]
    footprint = Footprint(float(length), float(width), float(high[2] - low[2]))
    return BodySize(footprint, float(-low[2]), float(model.body_mass.sum()))


def measure_wheel(body: FileBody, joint: str) -> Wheel:
    """Size up the wheel that ``joint`` turns; its axle must lie along the base's y."""
    model, data = body.rest()
    index = model.joint(joint).id
    wheel = model.jnt_bodyid[index]
    turn = data.body("base").xmat.reshape(3, 3)
    axis = turn.T @ data.xaxis[index]
    if abs(axis[1]) < 0.95:
        raise UserError(
            f"robot.wheels: joint {joint!r} turns about {axis.round(2)}, wanted an axle along y, left-right"
        )
    geoms = np.flatnonzero(model.geom_bodyid == wheel)
    if len(geoms) == 0:
        raise UserError(f"robot.wheels: joint {joint!r} turns no geom, so the wheel's radius is unknown")
    low, high = _extent(model, data, geoms)
    centre = (low + high) / 2
    own = data.xmat[wheel].reshape(3, 3)
    return Wheel(
        x=float(centre[0]),
        y=float(centre[1]),
        radius=float(high[2] - low[2]) / 2,
        width=float(high[1] - low[1]),
        sign=float(np.sign(axis[1])),
        centre=own.T @ (data.body("base").xpos + turn @ centre - data.xpos[wheel]),
        axis=own.T @ data.xaxis[index],
    )


class CustomDifferentialPlant(WheeledPlant):
    """T2 of a user's differential drive."""

    def __init__(self, embodiment: Embodiment) -> None:
        super().__init__(embodiment)
        body = body_alone(read(embodiment.mjcf), embodiment.mjcf)
        self.wheels = [measure_wheel(body, name) for name in embodiment.wheels]
        self._robot = body.spec
        for name, wheel in zip(embodiment.wheels, self.wheels, strict=True):
            _fit_tyre(self._robot, name, wheel)
        self._fit_motors()
        self._rest_qpos = body.rest()[1].qpos.copy()

    def spec(self) -> mujoco.MjSpec:
        """The user's body with our tyres and motors."""
        spec = self._robot.copy()
        spec.option.timestep = self.timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        return spec

    def stand(self, x: float, y: float, yaw: float) -> np.ndarray:
        """qpos (nq,) of the body at rest at a ground pose [m, m, rad], joints as in the file."""
        qpos = self._rest_qpos.copy()
        qpos[:7] = x, y, self.embodiment.base_height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
        return qpos

    def controller(self, model: mujoco.MjModel, num: int) -> DifferentialDrive:
        """The controller of ``num`` bodies."""
        left, right = self.wheels
        ramp = TwistRamp(self.embodiment.limits, num, self.control_dt)
        radii = np.array([wheel.sign * wheel.radius for wheel in self.wheels])
        return DifferentialDrive(ramp, radii, left.y - right.y)

    def _fit_motors(self) -> None:
        radius, body = self.wheels[0].radius, self.embodiment
        inertia = (1.0 + ROTOR_SHARE) * body.mass * radius**2 / 2
        # Twice what the acceleration limit takes on a level floor, as on the bodies of our own.
        torque = 2.0 * inertia * body.limits.acceleration[0] / radius
        for name in body.wheels:
            rotor = ROTOR_SHARE * body.mass * radius**2 / 2
            add_speed_servo(self._robot, name, inertia / SERVO_TIME, torque, rotor)


def _with_wheels(embodiment: Embodiment) -> Embodiment:
    """Add T2, see that it drives, and identify its lag."""
    plants = embodiment.plants | {"T2": "omnibody.robots.custom:CustomDifferentialPlant"}
    embodiment = dataclasses.replace(embodiment, plants=plants)
    plant = CustomDifferentialPlant(embodiment)
    speed, turn = embodiment.limits.velocity_high[0], embodiment.limits.velocity_high[2]
    commands = np.tile([[speed, 0.0, 0.0], [0.0, 0.0, turn]], (round(3.0 / plant.control_dt), 1, 1))
    track = run(plant, commands)
    reached, (_, x, y, _) = track.twist[-1], track.qpos[-1, 0, 3:7]
    tilt = math.acos(1.0 - 2.0 * (x * x + y * y))
    if tilt > MOST_TILT:
        raise UserError(
            f"robot.mjcf: {embodiment.mjcf}: the body tips by {math.degrees(tilt):.0f} degrees on its wheels; "
            "does it lack a caster, or does something reach below the wheels?"
        )
    if reached[0, 0] < 0.8 * speed or reached[1, 2] < 0.8 * turn:
        raise UserError(
            f"robot.wheels: asked for {speed} m/s and {turn} rad/s, {embodiment.wheels} reached {reached[0, 0]:.2f} "
            f"and {reached[1, 2]:.2f}; do these wheels carry the body, and does nothing else hold it back?"
        )
    return dataclasses.replace(embodiment, lag=identify(embodiment, plant).lag)


def _fit_tyre(spec: mujoco.MjSpec, joint: str, wheel: Wheel) -> None:
    """Put a round tyre in the place of the wheel's collision geoms, which stay to be seen."""
    body = spec.joint(joint).parent
    for geom in body.geoms:
        geom.conaffinity, geom.group = 0, GROUP_ROBOT_VISUAL
    quaternion = np.zeros(4)
    mujoco.mju_quatZ2Vec(quaternion, wheel.axis)
    body.add_geom(
        name=f"{joint}_tyre", type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=[wheel.radius, wheel.radius, wheel.width / 2],
        pos=wheel.centre, quat=quaternion, mass=0, contype=0, conaffinity=1, condim=4, priority=1,
        friction=WHEEL_FRICTION, group=GROUP_ROBOT, rgba=WHEEL_COLOUR,
    )  # fmt: skip


def _joint(spec: mujoco.MjSpec, name: str) -> str:
    """The joint of this name, or the one that an actuator of this name drives."""
    joints = {joint.name: joint.name for joint in spec.joints if joint.name}
    driven = {motor.name: motor.target for motor in spec.actuators if motor.target in joints}
    if name not in joints | driven:
        raise unknown("robot.wheels", name, joints | driven)
    return joints.get(name) or driven[name]


def _extent(model: mujoco.MjModel, data: mujoco.MjData, geoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (3,) each of the boxes around the geoms, in the base frame [m]."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    box = model.geom_aabb[geoms]
    corners = box[:, None, :3] + signs * box[:, None, 3:]
    world = np.einsum("gij,gkj->gki", data.geom_xmat[geoms].reshape(-1, 3, 3), corners) + data.geom_xpos[geoms, None]
    base = (world - data.body("base").xpos) @ data.body("base").xmat.reshape(3, 3)
    return base.min(axis=(0, 1)), base.max(axis=(0, 1))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
