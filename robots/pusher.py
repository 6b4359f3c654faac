"""A round tool on a plane: the body of Push-T, moved by a spring and a damper towards the commanded position.

Constants are gym-pusht 0.1.8's (`gym_pusht/envs/pusht.py`); lengths are in its pixels, of which the table has 512.
"""

from __future__ import annotations

from dataclasses import dataclass

from omnibody.robots.spec import Field


@dataclass(frozen=True)
class PlanarTool:
    """A `Body` without a base: ``radius`` [px], ``stiffness`` [1/s^2] and ``damping`` [1/s] of its servo.

    The action is the wanted position (x, y) on a table of ``size`` x ``size`` [px].
    """

    name: str
    radius: float
    stiffness: float
    damping: float
    size: float
    license: str
    source: str
    rate_hz: float = 10.0
    best_tier: str = "2D"

    @property
    def action(self) -> Field:
        """The wanted position."""
        return Field((2,), "float32", "px", (0.0,), (self.size,), ("x", "y"))


TOOL = PlanarTool(
    name="pusher",
    radius=15.0,
    stiffness=100.0,
    damping=20.0,
    size=512.0,
    license="Apache-2.0",
    source="gym-pusht 0.1.8",
)
