"""The desk's scripted player: reach - engage - move - release, element by element, at random speeds, with dither.

Its play is like people's in that order, speed, pauses and a small tremble vary, and handles slip now and then, which
shows how to go on with an element that stands halfway; it is less diverse than theirs.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from omnibody.sim_tasks.desk_elements import FULL, handles

STREAM = 0x9147  # keeps this generator apart from others that are seeded by (seed, episode)
SPEED = (0.25, 0.6)  # of the gripper [m/s], drawn for each element
AHEAD = 0.17  # [s]: the servos move at the speed if they aim this times the speed ahead
NEAR = 0.015  # from a handle [m], to take hold of it
CLOSE = 0.03  # of the travel, from the wanted value, to let go
TREMBLE = 0.004  # standard deviation of the target's dither [m], each axis
BACKWARD = np.array([0.0, -0.07, 0.02])  # from a handle that was let go [m]
PATIENCE = 5  # steps after which a grasp that holds nothing is given up
SLIPS = 0.2  # how often a handle is let go on its way and taken again
PAUSES, PAUSE = 0.5, 3.0  # how often there is a pause between two elements, and its mean length in steps


class Phase(Enum):
    """What the player is at."""

    REACH = "reach"
    ENGAGE = "engage"
    MOVE = "move"
    RELEASE = "release"
    RETREAT = "retreat"
    PAUSE = "pause"
    REST = "rest"  # nothing is left to do


class Player:
    """Plays one episode: brings the elements ``order`` (4,) to their values in ``goal`` (7,), one by one.

    ``stride``: largest displacement of an action [m]; ``episode``: (seed, number), of which all it draws is a function.
    """

    def __init__(self, order: np.ndarray, goal: np.ndarray, stride: float, episode: tuple[int, int]) -> None:
        self._order, self._goal, self._stride = list(order), goal, stride
        self._rng = np.random.default_rng([STREAM, *episode])
        self.phase, self._waited = Phase.PAUSE, 0
        self._pause, self._retreat = 0, np.zeros(3)
        self._speed, self._slip = 0.0, 0.0  # a move ends this share of the travel before the wanted value

    def act(self, qpos: np.ndarray, held: np.ndarray) -> np.ndarray:
        """The action (4,) at ``qpos`` (10,), with the handles ``held`` (7,) bool."""
        gripper, values = qpos[:3], qpos[3:]
        self._go_on(gripper, values, held)
        way = self._towards(self._aim(gripper, values) - gripper) + TREMBLE * self._rng.standard_normal(3)
        grasp = float(self.phase in (Phase.ENGAGE, Phase.MOVE))
        return np.array([*np.clip(way, -self._stride, self._stride), grasp])

    def _go_on(self, gripper: np.ndarray, values: np.ndarray, held: np.ndarray) -> None:
        """Change to the next phase where this one has come to its end."""
        self._waited += 1
        if self.phase is Phase.PAUSE and self._waited > self._pause:
            self._enter(Phase.REACH if self._order else Phase.REST)
            self._speed = self._rng.uniform(*SPEED)
        elif self.phase is Phase.REACH and np.linalg.norm(handles(values)[self._order[0]] - gripper) < NEAR:
            self._enter(Phase.ENGAGE)
        elif self.phase is Phase.ENGAGE and (held.any() or self._waited > PATIENCE):
            # Something else than meant is let go again.
            self._enter(Phase.MOVE if held[self._order[0]] else Phase.RELEASE)
            self._slip = self._left(values) * self._rng.random() if self._rng.random() < SLIPS else 0.0
        elif self.phase is Phase.MOVE and self._left(values) < max(CLOSE, self._slip):
            if self._left(values) < CLOSE:
                self._order.pop(0)
            self._enter(Phase.RELEASE)
        elif self.phase is Phase.RELEASE and not held.any():
            self._retreat = gripper + BACKWARD
            self._enter(Phase.RETREAT)
        elif self.phase is Phase.RETREAT and (np.linalg.norm(self._retreat - gripper) < NEAR or self._waited > 10):
            self._pause = self._rng.geometric(1.0 / PAUSE) if self._rng.random() < PAUSES else 0
            self._enter(Phase.PAUSE)

    def _left(self, values: np.ndarray) -> float:
        """How far the element that it is at is from its wanted value, as a share of the travel."""
        element = self._order[0]
        return float(abs((self._goal[element] - values[element]) / FULL[element]))

    def _enter(self, phase: Phase) -> None:
        self.phase, self._waited = phase, 0

    def _aim(self, gripper: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Where the gripper is to get to (3,)."""
        if self.phase in (Phase.REACH, Phase.ENGAGE):
            return handles(values)[self._order[0]]
        if self.phase is Phase.MOVE:
            return self._along(gripper, values, self._order[0])
        return self._retreat if self.phase is Phase.RETREAT else gripper

    def _along(self, gripper: np.ndarray, values: np.ndarray, element: int) -> np.ndarray:
        """The handle's place as far ahead on its way as the speed allows, at most at the wanted value."""
        rate = np.linalg.norm(handles(values + 1e-3)[element] - handles(values)[element]) / 1e-3  # [m per unit]
        most = self._speed * AHEAD / rate
        ahead = values.copy()
        ahead[element] += np.clip(self._goal[element] - values[element], -most, most)
        return handles(ahead)[element]

    def _towards(self, way: np.ndarray) -> np.ndarray:
        """The way (3,), no longer than the speed allows."""
        length = float(np.linalg.norm(way))
        return way * min(1.0, self._speed * AHEAD / max(length, 1e-9))
