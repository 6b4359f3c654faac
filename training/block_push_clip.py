"""Pictures of a block push table from above: x to the right, y up."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from omnibody.envs.vec_env import VecEnv
from omnibody.sim_tasks.block_push import COLOURS, HALF, IN_TARGET, BlockPush

WIDTH, FINE = 200, 3  # pixels of a picture, and how much finer it is drawn before it is made smaller
GROUND, EDGE, TARGET, TOOL = "#f4f2ec", "#58616b", "#dfe4e0", "#0072B2"
CORNERS = HALF * np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])


class BlockPushCamera:
    """Looks at the first table of an env: targets are discs, and outlines are where the goal wants the blocks."""

    drawn = "a drawing of the simulated table"

    def __init__(self, env: VecEnv) -> None:
        assert isinstance(env.task, BlockPush), f"this is no block push but {env.task.name}"
        self._env, self._task = env, env.task
        low, high = np.array(env.task.body.low), np.array(env.task.body.high)
        self._scale = WIDTH * FINE / (high[0] - low[0])
        self._corner = np.array([low[0], high[1]])  # shown at the top left
        self._size = (WIDTH, round(WIDTH * (high[1] - low[1]) / (high[0] - low[0])))

    def shoot(self) -> Image.Image:
        """The present picture."""
        task, world = self._task, self._env.world
        picture = Image.new("RGB", (FINE * self._size[0], FINE * self._size[1]), GROUND)
        draw = ImageDraw.Draw(picture)
        draw.rectangle([0, 0, picture.width - 1, picture.height - 1], outline=EDGE, width=2 * FINE)
        for target in task.targets[0]:
            self._disc(draw, target, IN_TARGET, TARGET)
        blocks, yaws = task.poses(world)
        for number, colour in enumerate(COLOURS):
            ink = tuple(round(255 * part) for part in colour[:3])
            goal = task.goal[0].reshape(2, 2)[number]
            c, s = math.cos(yaws[0, number]), math.sin(yaws[0, number])
            block = blocks[0, number] + CORNERS @ np.array([[c, s], [-s, c]])
            draw.polygon(self._pixels(block), fill=ink)
            draw.polygon(self._pixels(goal + CORNERS), outline=ink, width=2 * FINE)
        self._disc(draw, world.qpos[0, 14:].numpy(), task.body.radius, TOOL)
        return picture.resize(self._size, Image.Resampling.LANCZOS)

    def close(self) -> None:
        """It holds nothing."""

    def _pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        """Points (P, 2) [m] in the picture."""
        return [tuple(point) for point in (self._scale * (points - self._corner) * (1, -1)).tolist()]

    def _disc(self, draw: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, colour: str) -> None:
        (x, y), reach = self._pixels(centre[None])[0], self._scale * radius
        draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=colour)
