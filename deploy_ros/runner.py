"""From sensor readings to safe commands, without ROS: observations, staleness, policy state, goal latch, safety.

All times are seconds on one clock, that of the readings' stamps; poses are (x [m], y [m], yaw [rad]) in the odom frame.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from omnibody.deploy_ros.safety import SafetyFilter, cloud_obstacles, depth_obstacles, scan_obstacles
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.route import ROUTE_SEGMENTS, route_ahead
from omnibody.robots.spec import Embodiment

NEEDED = ("pose", "velocity", "depth")  # and the image, by a policy that sees it
OPTIONAL = ("scan", "points")  # once one came it must go on coming
OBSTACLES = (*OPTIONAL, "depth")  # what shows them
STALE_PERIODS = 3.0
SLACK = 0.1  # of a period: a tick follows the readings' arrival so much early or late
FUTURE = 0.05  # clocks of two machines may differ by this [s]
RESUME = 0.5  # fresh data for this long ends a hold [s]
OVERRUNS = 5  # in a row
GOAL_DISTANCE, GOAL_HEADING = 0.5, 0.1  # at the goal, as in training [m], [rad]; heading if the body turns in place
REST_SPEED, REST_TURN = 0.1, 0.1  # and at rest: a body stopped while it moves may coast out again [m/s], [rad/s]
REST_WINDOW = 0.5  # on average over this time, as a gait sways [s]
SAME_GOAL = 1e-3  # a streamed goal repeats itself up to this
PLAN_END = 1.0  # a plan that ends farther from the goal is one to another goal [m]


@dataclass(frozen=True)
class Command:
    """Drive at ``twist`` (3,) = (vx, vy, wz) [m/s, m/s, rad/s], heading frame."""

    twist: np.ndarray


@dataclass(frozen=True)
class Hold:
    """Stand still: ``what`` names the cause, ``detail`` what changes from tick to tick."""

    what: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """Both in one line."""
        return f"{self.what}, {self.detail}" if self.detail else self.what


class PolicyRunner:
    """Runs ``policy`` on ``embodiment``: feed it with ``observe``, call ``tick`` when it is ``due``.

    The rate is the policy's own; only ``rate_hz`` overrules it. A policy that plans several actions in a call is called
    again when those that it wants played (``action_steps``) are, or after a hold. ``counts`` adds up ticks, overruns
    and policy errors; ``safety.counts`` what was clamped. ``needed``: the readings that it cannot drive without.
    """

    def __init__(self, policy: Policy, embodiment: Embodiment, rate_hz: float | None = None) -> None:
        _check_fit(policy, embodiment)
        if rate_hz is None and policy.spec.rate_hz != embodiment.rate_hz:
            raise UserError(
                f"the policy was trained at {policy.spec.rate_hz} Hz, {embodiment.name} runs at {embodiment.rate_hz}"
                " Hz; ask for a rate to run it all the same"
            )
        self.policy, self.embodiment = policy, embodiment
        self.period = 1.0 / (rate_hz or policy.spec.rate_hz)
        self.safety = SafetyFilter(embodiment, self.period)
        self.counts = {"ticks": 0, "overruns": 0, "errors": 0}
        self.estop, self.engaged = False, True
        self._shapes = _readings(policy, embodiment)
        self.needed = (*NEEDED, *_picture(policy, embodiment))
        self._values: dict[str, np.ndarray] = {}
        self._obstacles: dict[str, np.ndarray] = {}  # what the latest readings show, (P, 2) [m] in the heading frame
        self._stamps: dict[str, float] = {}
        self._faults: dict[str, str] = {}
        self._new: set[str] = set()  # what came since the last tick
        self._poses: deque[tuple[float, np.ndarray]] = deque()  # of the last REST_WINDOW, with their stamps
        self._ticked, self._driving = -np.inf, False
        self._fresh_since: float | None = -np.inf  # None while data is missing
        self._goal: np.ndarray | None = None
        self._reached = False
        self._plan = self._way = np.zeros((0, 2))  # the latest, and the one in use
        self._overruns = 0
        self._state: State
        self._actions: list[list[float]] = []  # planned and not yet played
        self._begin()
        self._warm_up()

    def observe(self, key: str, value: np.ndarray, stamp: float) -> None:
        """A reading in the base frame, but for the pose.

        "pose" (3,), "velocity" (3,), "depth" (H, W) [m], "image" (H, W, 3) uint8 RGB, "scan" (R, 2) of range [m], or
        inf, and angle [rad], or "points" (P, 3) [m].
        """
        wanted = self._shapes[key]
        if len(value.shape) != len(wanted) or any(w not in (-1, v) for w, v in zip(wanted, value.shape, strict=True)):
            self.fault(key, f"wanted shape {wanted}, came {value.shape}")
        elif not np.isfinite(value[:, 1] if key == "scan" else value).all():
            self.fault(key, "wanted finite numbers, came NaN or inf")
        else:
            backwards = stamp < self._stamps.get(key, -np.inf)
            self._values[key], self._stamps[key] = value, stamp
            # Odometry from before the last tick belongs to it: were it new, every tick from then on would come with
            # the image, before the odometry of its time.
            if key in ("depth", "image") or stamp > self._ticked:
                self._new.add(key)
            self._faults.pop(key, None)
            if backwards:  # a restarted driver: take its clock, but only after a while
                self.interrupted()
            if key == "pose":
                self._remember(stamp, value)
            elif key in OBSTACLES:  # now, not when a command is waited for
                self._obstacles[key] = self._seen(key, value)

    def fault(self, key: str, reason: str) -> None:
        """The latest reading of ``key`` was unusable: hold until a good one has come."""
        self._faults[key] = reason
        self._new.add(key)

    def interrupted(self) -> None:
        """Time went on unseen: hold until data has been fresh for a while."""
        self._fresh_since = None
        self._poses.clear()

    def set_goal(self, pose: np.ndarray | tuple[float, float, float]) -> None:
        """Drive to a pose. A new one starts an episode; the same one again changes nothing."""
        goal = np.array(pose, np.float64)
        if goal.shape != (3,) or not np.isfinite(goal).all():
            raise UserError(f"goal: wanted finite (x, y, yaw), came {goal.tolist()}")
        if self._goal is None or np.abs(goal - self._goal).max() > SAME_GOAL:
            self._goal, self._reached = goal, False
            self._choose_way()
            self._begin()

    def set_route(self, points: np.ndarray) -> None:
        """The way (K, 2) [m] of a planner, before or after its goal; without one to the goal it is a straight line."""
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise UserError(f"plan: wanted finite points (K, 2), came shape {points.shape}")
        self._plan = np.array(points, np.float64)
        self._choose_way()

    def observation(self) -> Obs:
        """What the policy sees now, (1, ...), float32 but for the image, as the task of its training makes it."""
        assert self._goal is not None
        x, y, yaw = self._values["pose"].tolist()
        goal_x, goal_y, heading = self._goal.tolist()
        dx, dy, turn, c, s = goal_x - x, goal_y - y, heading - yaw, math.cos(yaw), math.sin(yaw)
        obs = {
            "depth": self._values["depth"][None],
            "velocity": self._values["velocity"][None],
            "route": self.route()[None],
            "goal": np.array([[c * dx + s * dy, c * dy - s * dx, math.cos(turn), math.sin(turn)]]),
        }
        seen = {key: torch.from_numpy(np.asarray(value, np.float32)) for key, value in obs.items()}
        if "image" in self.needed:
            seen["image"] = torch.from_numpy(self._values["image"][None])
        return seen

    def route(self) -> np.ndarray:
        """The next segments of the way (10, 4) [m] in the heading frame."""
        assert self._goal is not None
        return route_ahead(self._way, self._values["pose"], self._goal)

    @property
    def pose(self) -> np.ndarray:
        """The latest (x [m], y [m], yaw [rad]) in the odom frame."""
        return self._values["pose"]

    def way(self) -> np.ndarray:
        """The plan in use (K, 2) [m], odom frame; one to another goal is not."""
        return self._way

    def due(self, now: float) -> bool:
        """Whether to tick at ``now``: once a period when new readings are there, without them a little later.

        At once when a reading is unusable or has become too old to drive on. (One from the future may only have
        overtaken a simulator's clock.)
        """
        since = now - self._ticked
        late = not 0.0 <= since < (1.0 + SLACK) * self.period
        ready = since >= (1.0 - SLACK) * self.period and self._new.issuperset(self.needed)
        overdue = any(now - stamp > STALE_PERIODS * self.period + 1e-6 for stamp in self._stamps.values())
        return late or ready or (self._driving and (overdue or bool(self._faults)))

    def tick(self, now: float) -> Command | Hold:
        """The command of this period at time ``now``; whatever goes wrong becomes a `Hold`."""
        self._ticked = now
        self.counts["ticks"] += 1
        answer = self._answer(now)
        self._new.clear()
        self._driving = isinstance(answer, Command)
        if isinstance(answer, Hold):
            self.safety.stopped()
            self._actions.clear()
        return answer

    def _answer(self, now: float) -> Command | Hold:
        hold = self._not_ready(now)
        if hold is None:
            try:
                twist = _checked(self._act())
                if self._overruns < OVERRUNS:
                    obstacles = np.concatenate(list(self._obstacles.values()))
                    return Command(self.safety.filter(twist, obstacles))
                hold = Hold("overrun", f"over {self.period:.3f} s {self._overruns} times in a row")
            except Exception as error:  # whatever it is, the robot must stop
                self.counts["errors"] += 1
                self._begin()
                hold = Hold("policy failed", f"{type(error).__name__}: {error}")
        return hold

    def _not_ready(self, now: float) -> Hold | None:
        if self.estop:
            return Hold("estop")
        if not self.engaged:
            return Hold("disengaged")
        stale = self._stale(now)
        if stale is not None:
            self._fresh_since = None
            return stale
        if self._fresh_since is None or self._fresh_since > now:
            self._fresh_since = now
        if now - self._fresh_since < RESUME:
            return Hold("recovering", f"fresh data for {now - self._fresh_since:.2f} s of {RESUME} s")
        if self._goal is None:
            return Hold("no goal")
        self._reached = self._reached or self._at_goal(self._goal)
        return Hold("goal reached") if self._reached else None

    def _stale(self, now: float) -> Hold | None:
        for key, reason in self._faults.items():
            return Hold(f"unusable: {key}", reason)
        for key in self.needed + OPTIONAL:
            if key not in self._stamps:
                if key in OPTIONAL:
                    continue
                return Hold(f"stale: {key}", "none came yet")
            age = now - self._stamps[key]
            if not -FUTURE <= age <= STALE_PERIODS * self.period + 1e-6:
                return Hold(f"stale: {key}", f"age {age:.2f} s")
        return None

    def _remember(self, stamp: float, pose: np.ndarray) -> None:
        if len(self._poses) > 1 and stamp - self._poses[-2][0] < REST_WINDOW / 20:
            self._poses.pop()  # a flood of readings takes no more memory
        self._poses.append((stamp, pose))
        while len(self._poses) > 1 and self._poses[1][0] <= stamp - REST_WINDOW + 1e-6:
            self._poses.popleft()

    def _choose_way(self) -> None:
        """Use the plan, unless it leads to another goal."""
        leads = False
        if self._goal is not None and len(self._plan):
            leads = math.dist(self._plan[-1], self._goal[:2]) <= PLAN_END
        self._way = self._plan if leads else self._plan[:0]

    def _at_goal(self, goal: np.ndarray) -> bool:
        (then, before), (now, pose) = self._poses[0], self._poses[-1]
        x, y, yaw = pose.tolist()
        goal_x, goal_y, heading = goal.tolist()
        in_place = self.embodiment.limits.min_turning_radius == 0.0
        if math.hypot(goal_x - x, goal_y - y) >= GOAL_DISTANCE:
            return False
        if in_place and abs(_wrapped(heading - yaw)) >= GOAL_HEADING:
            return False
        last_x, last_y, last_yaw = before.tolist()
        seconds = now - then
        at_rest = math.hypot(x - last_x, y - last_y) < REST_SPEED * seconds
        at_rest = at_rest and abs(_wrapped(yaw - last_yaw)) < REST_TURN * seconds
        return at_rest and seconds >= REST_WINDOW - 1e-6

    def _act(self) -> np.ndarray:
        began = time.perf_counter()
        with torch.inference_mode():
            if self._actions:
                self._state = self.policy.observe(self.observation(), self._state)
            else:
                chunk, self._state = self.policy.act(self.observation(), self._state)
                self._actions = chunk[0, : self.policy.action_steps].tolist()
        late = time.perf_counter() - began > self.period
        self.counts["overruns"] += int(late)
        self._overruns = self._overruns + 1 if late else 0
        return np.array(self._actions.pop(0))

    def _seen(self, key: str, value: np.ndarray) -> np.ndarray:
        """What a reading shows that may be in the way, (P, 2) [m] in the heading frame."""
        body = self.embodiment
        if key == "scan":
            return scan_obstacles(value)
        if key == "points":
            return cloud_obstacles(value, body.base_height, body.footprint.height)
        return depth_obstacles(value, body.camera, body.base_height, body.footprint.height)

    def _warm_up(self) -> None:
        """Do all once with zeros: a first call takes a second, and what cannot run should say so before it drives."""
        given = _given(self.policy, self.embodiment)
        kinds = {"image": torch.uint8}
        obs = {key: torch.zeros(1, *shape, dtype=kinds.get(key, torch.float32)) for key, shape in given.items()}
        with torch.inference_mode():
            self.policy.act(obs, self._state)
        for key in OBSTACLES:
            zeros = np.zeros([abs(n) for n in self._shapes[key]], np.float32 if key == "depth" else np.float64)
            obstacles = self._seen(key, zeros)
        SafetyFilter(self.embodiment, self.period).filter(np.ones(3), np.concatenate((obstacles, np.ones((1, 2)))))
        route_ahead(self._way, np.zeros(3), np.ones(3))

    def _begin(self) -> None:
        self._state = self.policy.begin(Context(self.embodiment), 1)
        self._actions.clear()


def _checked(twist: np.ndarray) -> np.ndarray:
    if not all(map(math.isfinite, twist.tolist())):
        raise ValueError(f"action: wanted finite numbers, came {twist.tolist()}")
    return twist


def _wrapped(angle: float) -> float:
    """The same angle in (-pi, pi] [rad]."""
    return math.atan2(math.sin(angle), math.cos(angle))


def _picture(policy: Policy, embodiment: Embodiment) -> dict[str, tuple[int, ...]]:
    """The shape of the body's image, with as many rows as the policy's has; nothing for one that does not see it."""
    if not (image := policy.needs.obs.get("image")):
        return {}
    return {"image": embodiment.camera.picture(image.shape[0]).shape}


def _readings(policy: Policy, embodiment: Embodiment) -> dict[str, tuple[int, ...]]:
    """The shapes of readings; -1 is any number."""
    depth = (embodiment.camera.height, embodiment.camera.width)
    own: dict[str, tuple[int, ...]] = {
        "pose": (3,),
        "velocity": (3,),
        "depth": depth,
        "scan": (-1, 2),
        "points": (-1, 3),
    }
    return own | _picture(policy, embodiment)


def _given(policy: Policy, embodiment: Embodiment) -> dict[str, tuple[int, ...]]:
    """The observations made here and their shapes."""
    depth = (embodiment.camera.height, embodiment.camera.width)
    own: dict[str, tuple[int, ...]] = {"depth": depth, "velocity": (3,), "route": (ROUTE_SEGMENTS, 4), "goal": (4,)}
    return own | _picture(policy, embodiment)


def _check_fit(policy: Policy, embodiment: Embodiment) -> None:
    """Refuse a policy that wants what this body does not give."""
    given, needs = _given(policy, embodiment), policy.needs
    unknown = sorted(set(needs.obs) - set(given))
    if unknown:
        raise UserError(f"a robot gives {', '.join(given)}; the policy wants {', '.join(unknown)} as well")
    shapes = [(key, field.shape, given[key]) for key, field in needs.obs.items()]
    for name, wants, has in [*shapes, ("action", needs.action.shape, (3,))]:
        if tuple(wants) != has:
            raise UserError(f"{name}: the policy wants shape {tuple(wants)}, {embodiment.name} has {has}")
