"""What the trot of ``trot.py`` knows about a robot, and what it remembers of one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from omnibody.robots.leg import LegGeometry


class TrotConstants(NamedTuple):
    """Facts about one robot.

    ``nominal`` (4, 2) feet at rest and ``com`` (3,) in the body frame [m], ``inertia`` (3,) about it; ``low``, ``high``
    and ``acceleration`` (3,) bound the command and its rate. ``capture`` [s] turns a velocity error into a longer step,
    ``reach`` [m] limits a step, ``friction`` is the horizontal share of a foot's load asked for at most,
    ``pull`` [m/s^2] the horizontal acceleration of the trunk asked for at most.
    """

    dt: float
    height: float
    kp: float
    kd: float
    mass: float
    capture: float
    reach: float
    friction: float
    pull: float
    low: np.ndarray
    high: np.ndarray
    acceleration: np.ndarray
    com: np.ndarray
    inertia: np.ndarray
    nominal: np.ndarray
    legs: LegGeometry


class TrotState(NamedTuple):
    """What lives across control steps, one row a robot.

    ``phase`` (N,) in strides; ``standing`` (N, 4) feet on the ground by the clock; ``idle`` (N,) clock stopped;
    ``fresh`` (N,) to be started at the next step; ``anchor``, ``liftoff`` (N, 4, 3) where feet landed and left, world;
    ``reference`` (N, 3) x, y, yaw the command leads to, world; ``twist`` (N, 3) slew-limited command, heading.
    """

    phase: np.ndarray
    standing: np.ndarray
    idle: np.ndarray
    fresh: np.ndarray
    anchor: np.ndarray
    liftoff: np.ndarray
    reference: np.ndarray
    twist: np.ndarray

    @staticmethod
    def of(num: int) -> TrotState:
        """State of ``num`` robots that were just reset."""
        legs = np.zeros((num, 4, 3))
        flags = np.ones(num, np.bool_)
        vectors = np.zeros((num, 3))
        return TrotState(
            np.zeros(num),
            np.ones((num, 4), np.bool_),
            flags,
            flags.copy(),
            legs,
            legs.copy(),
            vectors,
            vectors.copy(),
        )


class Scratch(NamedTuple):
    """Arrays reused for one robot after another.

    ``feet`` (4, 3) and ``force`` on the robot [N] in the world, ``feet_body``, ``jacobian`` (4, 3, 3) in the body;
    ``arm`` (4, 3) from the centre of mass to the feet over the height; ``gram`` (6, 6), ``share`` (6,) of the solve.
    """

    feet_body: np.ndarray
    feet: np.ndarray
    jacobian: np.ndarray
    arm: np.ndarray
    force: np.ndarray
    gram: np.ndarray
    share: np.ndarray
