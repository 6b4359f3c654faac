"""The player of block push: a noisy script that pushes one block into its target, goes home, and pushes the other.

After the oracle of the original (arXiv 2109.00137, ``oriented_push_oracle``): behind the block on its line to the
target, up to it, push; when the block is turned against the line, circle closely around it, which drags it along.
Ours: it goes around blocks in its way, comes back to a block that has left its target again, turns a block the slower
the less it is turned against the line, and pushes it beside the middle so that it straightens on the way.
"""

from __future__ import annotations

from enum import Enum, auto

import numpy as np

Point = np.ndarray  # (2,) [m]

HOME = np.array([0.3, -0.4])
BEHIND, TOUCH, INSIDE = 0.05, 0.03, 0.01  # [m] behind a block's centre: before it goes up, at it, aim of a push
MOVE, PUSH, TURN = 0.030, 0.035, 0.020  # most [m] a step
CIRCLE = 0.025  # radius around a block's centre that turns it [m]
GAIN, LEAST = 0.7, 0.1  # of the angle on that circle to go, in the block's error; and its least [rad]
STEER = 0.04  # how far beside the line to push, in the block's error [m/rad]
CROOKED, STRAIGHT = 0.3, 0.1  # [rad] of yaw against the line: when to begin to turn, and when to stop
NEAR = 0.04  # [m] of a block to its target's centre when it is left there
ARRIVED = 0.004  # [m]
CLEAR, DETOUR = 0.042, 0.055  # [m] from a block's centre: nearest to pass, and where to pass instead
NOISE = 0.002  # [m] of every displacement, standard deviation each way


class Phase(Enum):
    """What the player is doing."""

    APPROACH = auto()
    TOUCH = auto()
    PUSH = auto()
    TURN = auto()
    LEAVE = auto()
    RETURN = auto()


class Player:
    """Plays one episode: ``asked`` (2,) is the target of each block; which one comes first is drawn."""

    def __init__(self, asked: np.ndarray, rng: np.random.Generator) -> None:
        self._asked, self._rng = asked.copy(), rng
        self._block = int(rng.integers(2))
        self._phase, self._left = Phase.APPROACH, HOME

    def act(self, tip: Point, blocks: np.ndarray, yaws: np.ndarray, targets: np.ndarray) -> Point:
        """The displacement (2,) of a tip commanded to ``tip``; ``blocks`` and ``targets`` (2, 2) [m], ``yaws`` (2,)."""
        block, ways = blocks[self._block], targets[self._asked] - blocks
        line = ways[self._block] / max(float(np.linalg.norm(ways[self._block])), 1e-9)
        error = _quarter(float(np.arctan2(line[1], line[0]) - yaws[self._block]))
        self._go_on(tip, block, line, error, np.linalg.norm(ways, axis=1))
        aim, speed = self._aim(tip, block, line, error)
        if self._phase in (Phase.APPROACH, Phase.RETURN):
            aim = _around(tip, aim, blocks)
        way = aim - tip
        way = way * min(1.0, speed / max(float(np.linalg.norm(way)), 1e-9))
        return way + NOISE * self._rng.normal(size=2)

    def _go_on(self, tip: Point, block: Point, line: Point, error: float, distances: np.ndarray) -> None:
        """Begin the next phase when this one is done; ``distances`` (2,) of the blocks to their targets."""
        phase, is_crooked = self._phase, abs(error) > CROOKED
        if phase is Phase.APPROACH and _is_at(tip, block - BEHIND * line):
            self._phase = Phase.TURN if is_crooked else Phase.TOUCH
        elif phase is Phase.TOUCH and (is_crooked or _is_at(tip, block - TOUCH * line)):
            self._phase = Phase.TURN if is_crooked else Phase.PUSH
        elif phase is Phase.PUSH and distances[self._block] < NEAR:
            self._phase, self._left = Phase.LEAVE, block - BEHIND * line
        elif phase is Phase.PUSH and (is_crooked or (block - tip) @ line < 0):
            self._phase = Phase.APPROACH
        elif phase is Phase.TURN and abs(error) < STRAIGHT:
            self._phase = Phase.APPROACH
        elif phase is Phase.LEAVE and _is_at(tip, self._left):
            self._phase = Phase.RETURN
        elif phase is Phase.RETURN and _is_at(tip, HOME):
            self._phase, other = Phase.APPROACH, 1 - self._block
            self._block = other if distances[other] > NEAR else self._block

    def _aim(self, tip: Point, block: Point, line: Point, error: float) -> tuple[Point, float]:
        """Where to go in this phase, and how far a step at most [m]."""
        if self._phase is Phase.APPROACH:
            return block - BEHIND * line, MOVE
        if self._phase is Phase.TOUCH:
            return block - TOUCH * line, MOVE
        if self._phase is Phase.PUSH:
            left = np.array([-line[1], line[0]])
            return block - INSIDE * line - STEER * error * left, PUSH
        if self._phase is Phase.TURN:
            return _circled(tip, block, np.sign(error) * min(LEAST + GAIN * abs(error), TURN / CIRCLE)), TURN
        return (self._left if self._phase is Phase.LEAVE else HOME), MOVE


def _is_at(tip: Point, point: Point) -> bool:
    return float(np.linalg.norm(tip - point)) < ARRIVED


def _quarter(angle: float) -> float:
    """The same angle of a square [rad], in -pi/4 ... pi/4."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4


def _circled(tip: Point, block: Point, angle: float) -> Point:
    """The point of the circle around a block that lies ``angle`` [rad] further on than the tip."""
    x, y = tip - block
    angle += np.arctan2(y, x)
    return block + CIRCLE * np.array([np.cos(angle), np.sin(angle)])


def _around(tip: Point, aim: Point, blocks: np.ndarray) -> Point:
    """``aim``, or a point beside the first block that a straight way to it would touch."""
    way = aim - tip
    length = max(float(np.linalg.norm(way)), 1e-9)
    ahead = way / length
    left = np.array([-ahead[1], ahead[0]])
    nearest = aim
    for block in blocks:
        along, across = (block - tip) @ ahead, (block - tip) @ left
        if 0.0 < along < length and abs(across) < CLEAR:
            nearest, length = block - (np.sign(across) or 1.0) * DETOUR * left, along
    return nearest
