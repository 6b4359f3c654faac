"""A trot for quadrupeds from kinematics and a balance of forces; no learning, no model of the ground.

Clock, foot placement and reference pose follow Raibert, "Legged Robots That Balance" (1986); the spread of a wanted
wrench over the standing feet follows Bledt et al., "MIT Cheetah 3" (IROS 2018, balance controller).

The controller is scalar numba code that loops over robots and releases the GIL; a robot's targets depend on its own
row only.
Frames: *world*, *body* (trunk), *heading* (world turned by the trunk's yaw). Legs FL, FR, RL, RR; joints hip (roll),
thigh, calf.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from omnibody.robots.leg import (
    JIT,
    LegGeometry,
    Pose,
    Vector,
    clip,
    cross,
    forward_kinematics,
    inverse_kinematics,
    joint_speeds,
    read_pose,
    solve,
    to_body,
    to_world,
)  # fmt: skip
from omnibody.robots.trot_state import Scratch, TrotConstants, TrotState

LEGS = ("FL", "FR", "RL", "RR")
JOINTS = ("hip", "thigh", "calf")
GRAVITY = 9.81

PERIOD = 0.38  # of a stride [s]
DUTY = 0.55  # share of the stride a foot stands
PHASE_OFFSET = (0.0, 0.5, 0.5, 0.0)  # diagonal pairs step together
SWING_TIME = PERIOD * (1.0 - DUTY)
STANCE_TIME = PERIOD * DUTY
SWING_HEIGHT = 0.07  # [m]
SINK = 0.01  # a swing aims this far below the ground, so that it lands for certain [m]
LEASH, IDLE_LEASH = 0.015, 0.05  # the reference position stays this close to the trunk, walking and standing [m]
YAW_LEASH = 0.15  # [rad]
SLIP = 0.05  # a standing foot that moved this far gets a new anchor [m]
KV = 6.0  # trunk velocity [1/s]
KZ, DZ = 100.0, 12.0  # height [1/s^2, 1/s]
KTILT, DTILT = 120.0, 14.0
KYAW, DYAW = 36.0, 20.0
DAMPING = 1e-3  # of the least-squares spread of forces
MAX_LOAD = 2.5  # of a standing foot, in shares of the weight
MAX_JOINT_SPEED = 15.0  # of the feed-forward [rad/s]
STILL_TWIST = 0.03  # a command below this is a wish to stand
STOP_SPEED, STOP_SPIN, STOP_SPREAD = 0.12, 0.6, 0.05  # calm enough to stop the clock [m/s, rad/s, m]
WAKE_SPEED, WAKE_UPRIGHT = 0.25, 0.97  # pushed enough to start it again [m/s, cosine]


class Trot:
    """``Controller`` of ``num`` equal quadrupeds: twist -> position targets of the 12 joints."""

    def __init__(self, constants: TrotConstants, num: int) -> None:
        self.constants = constants
        self.state = TrotState.of(num)

    def reset(self, rows: np.ndarray) -> None:
        """Start the robots in ``rows`` afresh, from wherever they are at the next command."""
        self.state.fresh[rows] = True

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Position targets (N, 12) [rad] for twist (N, 3); one call is one control step."""
        num = len(self.state.phase)
        if twist.shape != (num, 3) or len(qpos) != num or len(qvel) != num:
            raise ValueError(f"wanted {num} rows of twist, qpos, qvel; came {twist.shape}, {qpos.shape}, {qvel.shape}")
        targets = np.empty((num, 12))
        trot(_rows(twist), _rows(qpos), _rows(qvel), self.constants, self.state, targets)
        return targets


def _rows(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float64)


@njit(**JIT)
def trot(
    twist: np.ndarray,
    qpos: np.ndarray,
    qvel: np.ndarray,
    robot: TrotConstants,
    state: TrotState,
    targets: np.ndarray,
) -> None:
    """One control step of every robot: writes ``targets`` (N, 12) and advances ``state``."""
    feet = np.empty((4, 4, 3))
    work = Scratch(feet[0], feet[1], np.empty((4, 3, 3)), feet[2], feet[3], np.empty((6, 6)), np.empty(6))
    for n in range(len(twist)):
        pose = read_pose(qpos[n], qvel[n])
        find_feet(qpos[n], pose, robot.legs, work)
        if state.fresh[n]:
            start(n, pose, state, work)
        slew(n, twist[n], robot, state)
        advance_clock(n, twist[n], pose, robot, state, work)
        turn = advance_reference(n, pose, robot, state)
        ground, num_standing = feel_ground(n, robot, state, work)
        stance_forces(n, pose, turn, ground, num_standing, robot, state, work)
        for leg in range(4):
            if state.standing[n, leg]:
                point, speed = stance_target(n, leg, robot, state)
            else:
                point, speed = swing_target(n, leg, pose, ground, robot, state)
            joint_targets(leg, point, speed, pose, robot, work, targets[n])


@njit(**JIT)
def find_feet(qpos: np.ndarray, pose: Pose, legs: LegGeometry, work: Scratch) -> None:
    """Where the feet are, in the body frame and in the world, with their Jacobians."""
    for leg in range(4):
        k = 7 + 3 * leg
        foot = forward_kinematics(legs, leg, (qpos[k], qpos[k + 1], qpos[k + 2]), work.jacobian[leg])
        turned = to_world(pose, foot)
        for i in range(3):
            work.feet_body[leg, i] = foot[i]
            work.feet[leg, i] = turned[i] + pose.position[i]


@njit(**JIT)
def start(n: int, pose: Pose, state: TrotState, work: Scratch) -> None:
    """Begin standing still, with the feet where they are."""
    state.fresh[n] = False
    state.phase[n] = 0.0
    state.idle[n] = True
    state.standing[n] = True
    state.anchor[n] = work.feet
    state.liftoff[n] = work.feet
    state.reference[n, 0], state.reference[n, 1], state.reference[n, 2] = pose.position[0], pose.position[1], pose.yaw
    state.twist[n] = 0.0


@njit(**JIT)
def slew(n: int, twist: np.ndarray, robot: TrotConstants, state: TrotState) -> None:
    """Lead the command towards ``twist``, within the limits of speed and acceleration."""
    for i in range(3):
        wanted = min(max(twist[i], robot.low[i]), robot.high[i])
        state.twist[n, i] += clip(wanted - state.twist[n, i], robot.acceleration[i] * robot.dt)


@njit(**JIT)
def advance_clock(n: int, twist: np.ndarray, pose: Pose, robot: TrotConstants, state: TrotState, work: Scratch) -> None:
    """Move the gait on, or stop it with all feet down when nothing is wanted and the trunk is calm."""
    before = state.phase[n]
    after = before + robot.dt / PERIOD
    wish = True
    for i in range(3):
        wish &= abs(twist[i]) < STILL_TWIST and abs(state.twist[n, i]) < STILL_TWIST
    speed = math.hypot(pose.velocity[0], pose.velocity[1])
    if state.idle[n]:
        state.idle[n] = wish and speed < WAKE_SPEED and pose.row2[2] > WAKE_UPRIGHT
    elif wish and math.floor(2 * after) > math.floor(2 * before):
        spread = 0.0
        for leg in range(4):
            for i in range(2):
                spread = max(spread, abs(work.feet_body[leg, i] - robot.nominal[leg, i]))
        spin = max(abs(pose.spin[0]), abs(pose.spin[1]), abs(pose.spin[2]))
        state.idle[n] = speed < STOP_SPEED and spin < STOP_SPIN and spread < STOP_SPREAD
    if state.idle[n]:
        after = round(2 * before) / 2
    state.phase[n] = after - math.floor(after)
    for leg in range(4):
        step_foot(n, leg, state, work)


@njit(**JIT)
def leg_phase(n: int, leg: int, state: TrotState) -> float:
    """Phase of one leg: stance from 0 to DUTY, swing from there to 1."""
    phase = state.phase[n] + PHASE_OFFSET[leg]
    return phase - math.floor(phase)


@njit(**JIT)
def step_foot(n: int, leg: int, state: TrotState, work: Scratch) -> None:
    """Let the clock put a foot down or lift it; remember where. A foot that slipped far is anchored anew."""
    standing = state.idle[n] or leg_phase(n, leg, state) < DUTY
    slip = 0.0
    for i in range(3):
        slip += (work.feet[leg, i] - state.anchor[n, leg, i]) ** 2
    if standing and (not state.standing[n, leg] or slip > SLIP * SLIP):
        state.anchor[n, leg] = work.feet[leg]
    elif state.standing[n, leg] and not standing:
        state.liftoff[n, leg] = work.feet[leg]
    state.standing[n, leg] = standing


@njit(**JIT)
def wanted_velocity(n: int, pose: Pose, state: TrotState) -> tuple[float, float]:
    """Commanded velocity in the world [m/s]."""
    x, y = state.twist[n, 0], state.twist[n, 1]
    return pose.cos * x - pose.sin * y, pose.sin * x + pose.cos * y


@njit(**JIT)
def advance_reference(n: int, pose: Pose, robot: TrotConstants, state: TrotState) -> float:
    """Integrate the command from the reference pose, leashed to the trunk; returns the yaw still to turn [rad]."""
    vx, vy = wanted_velocity(n, pose, state)
    x = state.reference[n, 0] + robot.dt * vx - pose.position[0]
    y = state.reference[n, 1] + robot.dt * vy - pose.position[1]
    # A leash shorter than the sag of the standing body would let it creep for ever.
    leash = IDLE_LEASH if state.idle[n] else LEASH
    shrink = min(1.0, leash / max(math.hypot(x, y), 1e-9))
    turn = state.reference[n, 2] + robot.dt * state.twist[n, 2] - pose.yaw
    turn = clip(turn - 2 * math.pi * math.floor((turn + math.pi) / (2 * math.pi)), YAW_LEASH)
    state.reference[n, 0] = pose.position[0] + shrink * x
    state.reference[n, 1] = pose.position[1] + shrink * y
    state.reference[n, 2] = pose.yaw + turn
    return turn


@njit(**JIT)
def feel_ground(n: int, robot: TrotConstants, state: TrotState, work: Scratch) -> tuple[float, int]:
    """Mean height of the ground under the standing feet [m] and their number."""
    total, count = 0.0, 0
    for leg in range(4):
        if state.standing[n, leg]:
            count += 1
            total += min(work.feet[leg, 2], state.anchor[n, leg, 2] + 0.02)
    return total / max(count, 1) - robot.legs.foot_radius, count


@njit(**JIT)
def stance_target(n: int, leg: int, robot: TrotConstants, state: TrotState) -> tuple[Vector, Vector]:
    """Where a standing foot belongs in the body frame one step ahead, and its velocity there [m, m/s].

    Seen from the reference pose, level at its height over flat ground, so that the foot pushes the trunk towards it.
    """
    c, s = math.cos(state.reference[n, 2]), math.sin(state.reference[n, 2])
    vx, vy, wz = state.twist[n, 0], state.twist[n, 1], state.twist[n, 2]
    dx, dy = state.anchor[n, leg, 0] - state.reference[n, 0], state.anchor[n, leg, 1] - state.reference[n, 1]
    x, y = c * dx + s * dy - robot.dt * vx, -s * dx + c * dy - robot.dt * vy
    return (x, y, robot.legs.foot_radius - robot.height), (wz * y - vx, -wz * x - vy, 0.0)


@njit(**JIT)
def touchdown(n: int, leg: int, left: float, pose: Pose, robot: TrotConstants, state: TrotState) -> tuple[float, float]:
    """Where a foot that lands in ``left`` seconds should land, world [m].

    Below its hip at mid-stance if the trunk keeps its velocity, and further out by ``capture`` times the velocity
    error, so that the step brakes it.
    """
    vx, vy = wanted_velocity(n, pose, state)
    ahead = left + 0.5 * STANCE_TIME
    x = clip(pose.velocity[0] * ahead + robot.capture * (pose.velocity[0] - vx), robot.reach)
    y = clip(pose.velocity[1] * ahead + robot.capture * (pose.velocity[1] - vy), robot.reach)
    yaw = pose.yaw + state.twist[n, 2] * ahead
    c, s = math.cos(yaw), math.sin(yaw)
    hip_x, hip_y = robot.nominal[leg, 0], robot.nominal[leg, 1]
    return pose.position[0] + c * hip_x - s * hip_y + x, pose.position[1] + s * hip_x + c * hip_y + y


@njit(**JIT)
def swing_target(
    n: int, leg: int, pose: Pose, ground: float, robot: TrotConstants, state: TrotState
) -> tuple[Vector, Vector]:
    """Where a swinging foot belongs in the body frame one step ahead, and its velocity there [m, m/s]."""
    done = (leg_phase(n, leg, state) - DUTY) / (1.0 - DUTY)
    x, y = touchdown(n, leg, (1.0 - done) * SWING_TIME, pose, robot, state)
    s = min(done + robot.dt / SWING_TIME, 1.0)
    along, rate = s * s * s * (10.0 - 15.0 * s + 6.0 * s * s), 30.0 * s * s * (1.0 - s) ** 2 / SWING_TIME
    lift, climb = math.sin(math.pi * s) ** 2, math.pi * math.sin(2.0 * math.pi * s) / SWING_TIME
    start_x, start_y, start_z = state.liftoff[n, leg]
    dx, dy, dz = x - start_x, y - start_y, ground + robot.legs.foot_radius - SINK - start_z
    # Relative to the trunk one step ahead; its height is held, so only its horizontal motion counts.
    relative = (
        start_x + dx * along - pose.position[0] - robot.dt * pose.velocity[0],
        start_y + dy * along - pose.position[1] - robot.dt * pose.velocity[1],
        start_z + dz * along + SWING_HEIGHT * lift - pose.position[2],
    )
    swept = cross(pose.spin, relative)
    velocity = (
        dx * rate - pose.velocity[0] - swept[0],
        dy * rate - pose.velocity[1] - swept[1],
        dz * rate + SWING_HEIGHT * climb - pose.velocity[2] - swept[2],
    )
    return to_body(pose, relative), to_body(pose, velocity)


@njit(**JIT)
def wanted_wrench(
    n: int, pose: Pose, turn: float, ground: float, robot: TrotConstants, state: TrotState
) -> tuple[Vector, Vector]:
    """Force [N] and torque [Nm] about the centre of mass, world, that carry, level, move and turn the trunk."""
    vx, vy = wanted_velocity(n, pose, state)
    pull_x, pull_y = KV * (vx - pose.velocity[0]), KV * (vy - pose.velocity[1])
    inside = min(1.0, robot.pull / max(math.hypot(pull_x, pull_y), 1e-9))
    rise = KZ * (ground + robot.height - pose.position[2]) - DZ * pose.velocity[2]
    force = (
        robot.mass * inside * pull_x,
        robot.mass * inside * pull_y,
        robot.mass * (GRAVITY + rise),
    )
    # The turn that takes the trunk's z axis to the vertical is z_body x z_world = (row1[2], -row0[2], 0).
    roll, pitch = KTILT * pose.row1[2] - DTILT * pose.spin[0], -KTILT * pose.row0[2] - DTILT * pose.spin[1]
    about_x = robot.inertia[0] * (pose.cos * roll + pose.sin * pitch)
    about_y = robot.inertia[1] * (pose.cos * pitch - pose.sin * roll)
    about_z = robot.inertia[2] * (KYAW * turn + DYAW * (state.twist[n, 2] - pose.spin[2]))
    return force, (pose.cos * about_x - pose.sin * about_y, pose.sin * about_x + pose.cos * about_y, about_z)


@njit(**JIT)
def stance_forces(
    n: int, pose: Pose, turn: float, ground: float, count: int, robot: TrotConstants, state: TrotState, work: Scratch
) -> None:
    """Spread the wanted wrench over the standing feet: writes ``work.force`` (4, 3) on the robot, world [N].

    Least squares with damping: f = A' (A A' + d)^-1 wrench, A = [1; r x], torque rows divided by the height to have
    the same unit; then clipped to what a foot can push.
    """
    force, torque = wanted_wrench(n, pose, turn, ground, robot, state)
    com = to_world(pose, (robot.com[0], robot.com[1], robot.com[2]))
    scale = 1.0 / robot.height
    gram = work.gram
    gram[:] = 0.0
    for leg in range(4):
        work.arm[leg] = 0.0
        if state.standing[n, leg]:
            for i in range(3):
                work.arm[leg, i] = scale * (work.feet[leg, i] - pose.position[i] - com[i])
            add_gram(gram, work.arm[leg])
    for i in range(6):
        gram[i, i] += DAMPING
    share = work.share
    for i in range(3):
        share[i], share[i + 3] = force[i], scale * torque[i]
    solve(gram, share)
    most = MAX_LOAD * robot.mass * GRAVITY / max(count, 1)
    along, about = (share[0], share[1], share[2]), (share[3], share[4], share[5])
    for leg in range(4):
        work.force[leg] = 0.0
        if state.standing[n, leg]:
            arm = (work.arm[leg, 0], work.arm[leg, 1], work.arm[leg, 2])
            push = cross(about, arm)
            x, y, load = along[0] + push[0], along[1] + push[1], min(max(along[2] + push[2], 0.0), most)
            inside = min(1.0, robot.friction * load / max(math.hypot(x, y), 1e-9))
            work.force[leg, 0], work.force[leg, 1], work.force[leg, 2] = inside * x, inside * y, load


@njit(**JIT)
def add_gram(gram: np.ndarray, arm: np.ndarray) -> None:
    """Add A A' of one foot: [[1, -[r]x], [[r]x, -[r]x [r]x]] for A = [1; [r]x]."""
    x, y, z = arm[0], arm[1], arm[2]
    for i in range(3):
        gram[i, i] += 1.0
        for j in range(3):
            gram[3 + i, 3 + j] -= arm[i] * arm[j]
        gram[3 + i, 3 + i] += x * x + y * y + z * z
    gram[3, 1] -= z
    gram[3, 2] += y
    gram[4, 0] += z
    gram[4, 2] -= x
    gram[5, 0] -= y
    gram[5, 1] += x


@njit(**JIT)
def joint_targets(
    leg: int, point: Vector, velocity: Vector, pose: Pose, robot: TrotConstants, work: Scratch, targets: np.ndarray
) -> None:
    """Servo targets of one leg: the angles of ``point``, with joint speed and force fed forward on top.

    The servo gives kp (target - q) - kd q', so a target of angle + (kd speed + torque) / kp adds both.
    """
    angles = inverse_kinematics(robot.legs, leg, point)
    jacobian = work.jacobian[leg]
    speeds = joint_speeds(jacobian, velocity, MAX_JOINT_SPEED)
    push = to_body(pose, (work.force[leg, 0], work.force[leg, 1], work.force[leg, 2]))
    for i in range(3):
        torque = -(jacobian[0, i] * push[0] + jacobian[1, i] * push[1] + jacobian[2, i] * push[2])
        targets[3 * leg + i] = angles[i] + (robot.kd * speeds[i] + torque) / robot.kp
