"""Pictures of a Meta-World table by MuJoCo, from the robot's right; without OpenGL a drawing of what the state says."""

from __future__ import annotations

import mujoco
import numpy as np
from PIL import Image, ImageDraw

from omnibody.envs.metaworld import MetaWorldEnv
from omnibody.envs.render import Canvas, GraphicsError, graphics_backend
from omnibody.training.oblique import Oblique

WIDTH, HEIGHT = 320, 240  # pixels of a picture
LOOK_AT, DISTANCE, AZIMUTH, ELEVATION = (0.0, 0.66, 0.14), 1.2, 155.0, -28.0  # of the view [m, m, degrees, degrees]
GROUND, TOP, GUIDE = "#f4f2ec", "#e2ddd0", "#c6c0b2"
HAND, THING, GOAL = "#0072B2", "#5a6b7d", "#2f9e63"
TABLE = np.array([[-0.6, 0.3, 0.0], [0.6, 0.3, 0.0], [0.6, 1.0, 0.0], [-0.6, 1.0, 0.0]])  # [m]
DRAWING = Oblique(WIDTH, HEIGHT, (-0.55, 0.05), 1.55)


class MetaWorldCamera:
    """Looks at the first table of an env."""

    def __init__(self, env: MetaWorldEnv) -> None:
        self._env = env
        self._canvas: Canvas | None = None
        try:
            self._canvas = Canvas(env.tables[0].env.model, WIDTH, HEIGHT)
            self.drawn = f"MuJoCo, {graphics_backend()}"
        except GraphicsError:
            self.drawn = "a drawing of hand (blue), object and goal (green)"
        self._option, self._view = mujoco.MjvOption(), mujoco.MjvCamera()
        self._view.lookat[:], self._view.distance = LOOK_AT, DISTANCE
        self._view.azimuth, self._view.elevation = AZIMUTH, ELEVATION

    def shoot(self) -> Image.Image:
        """The present picture."""
        if self._canvas is None:
            return self._draw()
        table, everything = self._env.tables[0].env, mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(table.model, table.data, self._option, None, self._view, everything, self._canvas.scene)
        return Image.fromarray(self._canvas.draw())

    def close(self) -> None:
        """Free the graphics context."""
        if self._canvas is not None:
            self._canvas.close()

    def _draw(self) -> Image.Image:
        picture = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
        draw = ImageDraw.Draw(picture)
        draw.polygon(DRAWING.pixels(TABLE), fill=TOP)
        points = self._env.task.path(self._env.world)[0].numpy().reshape(3, 3)
        for point, colour, reach in zip(points, (HAND, THING, GOAL), (6, 8, 5), strict=True):
            foot = point * (1.0, 1.0, 0.0)
            (x, y), ground = DRAWING.pixels(point[None])[0], DRAWING.pixels(foot[None])[0]
            draw.line([(x, y), ground], fill=GUIDE)
            draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=colour)
        return picture
