"""From sensor readings to safe commands, without ROS: observations, staleness, policy state, goal latch, safety.

All times are seconds on one clock, that of the readings' stamps; poses are (x [m], y [m], yaw [rad]) in the odom frame.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from omnibody.deploy_ros.safety import SafetyFilter, depth_obstacles, scan_obstacles
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.plant import into_heading
from omnibody.robots.route import route_along
from omnibody.robots.spec import Embodiment

NEEDED = ("pose", "velocity", "depth")
GIVEN = ("depth", "velocity", "route", "goal")  # the observations made here
STALE_PERIODS = 3.0
FUTURE = 0.05  # clocks of two machines may differ by this [s]
RESUME = 0.5  # fresh data for this long ends a hold [s]
OVERRUNS = 5  # in a row
GOAL_DISTANCE, GOAL_HEADING = 0.5, 0.1  # at the goal, as in training [m], [rad]; heading if the body turns in place
REST_SPEED, REST_TURN = 0.1, 0.1  # and at rest: a body stopped while it moves may coast out again [m/s], [rad/s]
SAME_GOAL = 1e-3  # a streamed goal repeats itself up to this


@dataclass(frozen=True)
class Command:
    """Drive at ``twist`` (3,) = (vx, vy, wz) [m/s, m/s, rad/s], heading frame."""

    twist: np.ndarray


@dataclass(frozen=True)
class Hold:
    """Stand still, and why."""

    reason: str


class PolicyRunner:
    """Runs ``policy`` on ``embodiment``: feed it with ``observe``, call ``tick`` once a period.

    ``counts`` adds up overruns and policy errors; ``safety.counts`` what was clamped.
    """

    def __init__(self, policy: Policy, embodiment: Embodiment) -> None:
        unknown = set(getattr(policy, "obs_keys", policy.spec.obs)) - set(GIVEN)
        if unknown:
            raise UserError(f"a robot gives {', '.join(GIVEN)}; the policy wants {', '.join(sorted(unknown))} as well")
        if policy.spec.rate_hz != embodiment.rate_hz:
            raise UserError(
                f"the policy was trained at {policy.spec.rate_hz} Hz, {embodiment.name} runs at {embodiment.rate_hz} Hz"
            )
        self.policy, self.embodiment = policy, embodiment
        self.period = 1.0 / embodiment.rate_hz
        self.safety = SafetyFilter(embodiment, self.period)
        self.counts = {"overruns": 0, "errors": 0}
        self.estop = False
        self._values: dict[str, np.ndarray] = {}
        self._stamps: dict[str, float] = {}
        self._faults: dict[str, str] = {}
        self._fresh_since: float | None = -np.inf  # None while data is missing
        self._goal: np.ndarray | None = None
        self._reached = False
        self._way = np.zeros((0, 2))
        self._overruns = 0
        self._state: State
        self._begin()

    def observe(self, key: str, value: np.ndarray, stamp: float) -> None:
        """A reading: "pose" (3,), "velocity" (3,), "depth" (H, W) [m] or "scan" (R, 2) of range [m] and angle [rad]."""
        wanted = self._shape(key)
        if len(value.shape) != len(wanted) or any(w not in (-1, v) for w, v in zip(wanted, value.shape, strict=True)):
            self.fault(key, f"wanted shape {wanted}, came {value.shape}")
        elif not np.isfinite(value[:, 1] if key == "scan" else value).all():
            self.fault(key, "wanted finite numbers, came NaN or inf")
        else:
            backwards = stamp < self._stamps.get(key, -np.inf)
            self._values[key], self._stamps[key] = value, stamp
            self._faults.pop(key, None)
            if backwards:  # a restarted driver: take its clock, but only after a while
                self._fresh_since = None

    def fault(self, key: str, reason: str) -> None:
        """The latest reading of ``key`` was unusable: hold until a good one has come."""
        self._faults[key] = reason

    def set_goal(self, pose: np.ndarray | tuple[float, float, float]) -> None:
        """Drive to a pose. A new one starts an episode; the same one again changes nothing."""
        goal = np.array(pose, np.float64)
        if goal.shape != (3,) or not np.isfinite(goal).all():
            raise UserError(f"goal: wanted finite (x, y, yaw), came {goal.tolist()}")
        if self._goal is None or np.abs(goal - self._goal).max() > SAME_GOAL:
            self._goal, self._reached, self._way = goal, False, np.zeros((0, 2))
            self._begin()

    def set_route(self, points: np.ndarray) -> None:
        """The way to the goal (K, 2) [m] of a planner; without one it is a straight line."""
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise UserError(f"plan: wanted finite points (K, 2), came shape {points.shape}")
        self._way = np.array(points, np.float64)

    def observation(self) -> Obs:
        """What the policy sees now, float32 (1, ...), as the task of its training makes it."""
        assert self._goal is not None
        position, yaw = self._values["pose"][:2], self._values["pose"][2:]
        offset = into_heading(yaw, (self._goal[:2] - position)[None])[0]
        turn = self._goal[2] - yaw[0]
        obs = {
            "depth": self._values["depth"],
            "velocity": self._values["velocity"],
            "route": self.route(),
            "goal": np.array([*offset, np.cos(turn), np.sin(turn)]),
        }
        return {key: torch.from_numpy(np.asarray(value, np.float32))[None] for key, value in obs.items()}

    def route(self) -> np.ndarray:
        """The next segments of the way (10, 4) [m] in the heading frame."""
        assert self._goal is not None
        position, yaw = self._values["pose"][:2], self._values["pose"][2:]
        route = route_along(self._way, position, self._goal[:2])
        return into_heading(yaw, route.reshape(-1, 2) - position).reshape(route.shape)

    def tick(self, now: float) -> Command | Hold:
        """The command of this period at time ``now``; whatever goes wrong becomes a `Hold`."""
        reason = self._not_ready(now)
        if not reason:
            try:
                twist = self._act()
                if not np.isfinite(twist).all():
                    raise ValueError(f"action: wanted finite numbers, came {twist.tolist()}")
                if self._overruns < OVERRUNS:
                    return Command(self.safety.filter(twist, self._obstacles()))
                reason = f"overrun: the policy took longer than {self.period:.3f} s {self._overruns} times in a row"
            except Exception as error:  # whatever it is, the robot must stop
                self.counts["errors"] += 1
                self._begin()
                reason = f"policy: {type(error).__name__}: {error}"
        self.safety.stopped()
        return Hold(reason)

    def _not_ready(self, now: float) -> str:
        if self.estop:
            return "estop"
        stale = self._stale(now)
        if stale:
            self._fresh_since = None
            return stale
        if self._fresh_since is None or self._fresh_since > now:
            self._fresh_since = now
        if now - self._fresh_since < RESUME:
            return f"recovering: fresh data for {now - self._fresh_since:.2f} s of {RESUME} s"
        if self._goal is None:
            return "no goal"
        self._reached = self._reached or self._at_goal(self._goal)
        return "goal reached" if self._reached else ""

    def _stale(self, now: float) -> str:
        if self._faults:
            key, reason = next(iter(self._faults.items()))
            return f"{key}: {reason}"
        for key in (*NEEDED, *(("scan",) if "scan" in self._values else ())):
            if key not in self._values:
                return f"stale: {key}, none came yet"
            age = now - self._stamps[key]
            if not -FUTURE <= age <= STALE_PERIODS * self.period + 1e-6:
                return f"stale: {key}, age {age:.2f} s"
        return ""

    def _at_goal(self, goal: np.ndarray) -> bool:
        apart = goal - self._values["pose"]
        turn = abs(np.arctan2(np.sin(apart[2]), np.cos(apart[2])))
        in_place = self.embodiment.limits.min_turning_radius == 0.0
        velocity = self._values["velocity"]
        at_rest = np.linalg.norm(velocity[:2]) < REST_SPEED and abs(velocity[2]) < REST_TURN
        near = np.linalg.norm(apart[:2]) < GOAL_DISTANCE and (turn < GOAL_HEADING or not in_place)
        return bool(near and at_rest)

    def _act(self) -> np.ndarray:
        began = time.perf_counter()
        with torch.inference_mode():
            action, self._state = self.policy.act(self.observation(), self._state)
        late = time.perf_counter() - began > self.period
        self.counts["overruns"] += int(late)
        self._overruns = self._overruns + 1 if late else 0
        return action[0, 0].numpy().astype(np.float64)

    def _obstacles(self) -> np.ndarray:
        body = self.embodiment
        points = depth_obstacles(self._values["depth"], body.camera, body.base_height, body.footprint.height)
        if "scan" in self._values:
            points = np.concatenate((points, scan_obstacles(*self._values["scan"].T)))
        return points

    def _begin(self) -> None:
        self._state = self.policy.begin(Context(self.embodiment), 1)

    def _shape(self, key: str) -> tuple[int, ...]:
        camera = self.embodiment.camera
        return {"pose": (3,), "velocity": (3,), "depth": (camera.height, camera.width), "scan": (-1, 2)}[key]
