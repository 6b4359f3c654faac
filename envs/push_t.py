"""`VecEnv` of Push-T on pymunk (Chipmunk): N tables with a tool and a T, gym-pusht's physics without its drawing.

The constants and the order of operations are gym-pusht 0.1.8's, so a step from the same state gives the same bits; a
test compares them. A start is set angle first: a body turns about its centre of mass, so the other order moves the T.
"""

from __future__ import annotations

import numpy as np
import pymunk
import torch
from numpy.typing import NDArray

from omnibody.envs.serial import SerialEnv
from omnibody.robots.pusher import PlanarTool
from omnibody.sim_tasks import tee
from omnibody.sim_tasks.push_t import PushT, TableWorld

TICK = 0.01  # [s]
MASS = 1.0
# Ends of the table's edges [px], gym-pusht's; the last one's direction decides the order of contact points.
WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
WALL_RADIUS = 2.0


class Table:
    """One table: a kinematic tool, a T that slides with friction against all motion (damping 0), and four walls."""

    def __init__(self, tool: PlanarTool) -> None:
        self._tool, self._ticks = tool, round(1.0 / (TICK * tool.rate_hz))
        self._space = pymunk.Space()
        self._space.damping = 0.0
        self._space.add(*(pymunk.Segment(self._space.static_body, a, b, WALL_RADIUS) for a, b in WALLS))
        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._space.add(self._agent, pymunk.Circle(self._agent, tool.radius))
        bar, stem = (_rectangle(box) for box in (tee.BAR, tee.STEM))
        # gym-pusht gives the stem the bar's moment of inertia; kept, as its scores are compared with.
        self._block = pymunk.Body(MASS, 2 * pymunk.moment_for_poly(MASS, bar))
        self._space.add(self._block, pymunk.Poly(self._block, bar), pymunk.Poly(self._block, stem))
        self._block.center_of_gravity = tee.CENTRE_OF_MASS

    @property
    def state(self) -> tuple[float, ...]:
        """Tool x, y [px], the T's x, y [px] and angle [rad]."""
        return (*self._agent.position, *self._block.position, self._block.angle)

    def place(self, state: NDArray[np.float64]) -> None:
        """Put tool and T at ``state`` (5,), at rest, and let overlaps push the T out for one tick."""
        x, y, block_x, block_y, angle = state.tolist()
        self._agent.velocity = self._block.velocity = (0.0, 0.0)
        self._block.angular_velocity = 0.0
        self._agent.position = (x, y)
        self._block.angle = angle
        self._block.position = (block_x, block_y)
        self._space.step(TICK)

    def advance(self, x: float, y: float) -> None:
        """Draw the tool towards (x, y) [px] for one step of the policy."""
        agent, space = self._agent, self._space
        stiffness, damping = self._tool.stiffness, self._tool.damping
        for _ in range(self._ticks):
            (px, py), (vx, vy) = agent.position, agent.velocity
            pull_x, pull_y = stiffness * (x - px) + damping * (0.0 - vx), stiffness * (y - py) + damping * (0.0 - vy)
            agent.velocity = (vx + pull_x * TICK, vy + pull_y * TICK)
            space.step(TICK)


def _rectangle(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    left, top, right, bottom = box
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


class PushTEnv(SerialEnv):
    """Tables with a tool and a T."""

    task: PushT
    term = "coverage"

    def __init__(self, task: PushT, num_envs: int) -> None:
        super().__init__(task, num_envs)
        self.tables = [Table(task.body) for _ in range(num_envs)]

    def _advance(self, actions: NDArray[np.float64]) -> None:
        for table, target in zip(self.tables, actions.tolist(), strict=True):
            table.advance(*target)

    def _start(self, rows: NDArray[np.int64], episodes: NDArray[np.int64], seed: int) -> None:
        for row, start in zip(rows, self.task.reset(rows, episodes, seed), strict=True):
            # A new one, as Chipmunk remembers the contacts of the last episode.
            self.tables[row] = Table(self.task.body)
            self.tables[row].place(start)

    def _look(self) -> TableWorld:
        state = torch.tensor([table.state for table in self.tables], dtype=torch.float64)
        return TableWorld(self._time(), state[:, :2], state[:, 2:])
