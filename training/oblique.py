"""A view onto a table from the front, above and a little to the left, for drawings without graphics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEEPER = np.array([0.32, 0.45])  # of the picture, to the right and up, per metre away from the viewer


@dataclass(frozen=True)
class Oblique:
    """Shows ``span`` [m] from ``lower_left`` (x, z) [m] on in a picture of ``width`` x ``height`` pixels."""

    width: int
    height: int
    lower_left: tuple[float, float]
    span: float

    def pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        """Points (P, 3) [m] in the picture."""
        flat = points[:, [0, 2]] + points[:, 1:2] * DEEPER
        right, up = (self.width * (flat - np.array(self.lower_left)) / self.span).T
        return list(zip(right.tolist(), (self.height - up).tolist(), strict=True))
