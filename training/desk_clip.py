"""Pictures of a desk from the front, above and a little to the left: a drawing, so that no graphics are needed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from omnibody.envs.vec_env import VecEnv
from omnibody.sim_tasks.desk import Desk
from omnibody.sim_tasks.desk_elements import ELEMENTS, done, handles
from omnibody.training.oblique import Oblique

WIDTH, HEIGHT = 300, 216  # pixels of a picture
FINE = 3  # how much finer it is drawn before it is made smaller
GROUND, TOP, WALL, ROD, GUIDE = "#f4f2ec", "#e2ddd0", "#ece8de", "#5a6b7d", "#c6c0b2"
WANTED, REST, DONE, TOOL = "#a8d8b9", "#8a97a5", "#2f9e63", "#0072B2"
VIEW = Oblique(WIDTH * FINE, HEIGHT * FINE, (-0.60, -0.11), 1.34)


class DeskCamera:
    """Looks at the first desk of an env.

    Pale green rings are where the goal wants handles, of the elements that it wants; handles of done elements are green
    and the gripper is filled while it holds one.
    """

    drawn = "a drawing of the simulated desk"

    def __init__(self, env: VecEnv) -> None:
        assert isinstance(env.task, Desk), f"this is no desk but {env.task.name}"
        self._env, self._task = env, env.task

    def shoot(self) -> Image.Image:
        """The present picture."""
        picture = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), GROUND)
        draw = ImageDraw.Draw(picture)
        world, goal, low, high = self._env.world, self._task.goal[0], self._task.body.low, self._task.body.high
        gripper, values = world.qpos[0, :3].numpy(), world.qpos[0, 3:].numpy()
        x, y, z = (np.array(ends) for ends in zip(low, high, strict=True))
        top = [(x[0], y[0], 0.0), (x[1], y[0], 0.0), (x[1], y[1], 0.0), (x[0], y[1], 0.0)]
        wall = [(x[0], y[1], 0.0), (x[1], y[1], 0.0), (x[1], y[1], z[1]), (x[0], y[1], z[1])]
        for corners, colour in ((top, TOP), (wall, WALL)):
            draw.polygon(VIEW.pixels(np.array(corners)), fill=colour)
        self._draw_goal(draw, goal)
        for index in np.argsort([-element.handle[1] for element in ELEMENTS]):  # the farthest first
            self._draw_element(draw, int(index), values)
        foot = np.array([gripper[0], gripper[1], 0.0])
        draw.line(VIEW.pixels(np.stack([foot, gripper])), fill=GUIDE, width=FINE)
        holds = bool(world.eq_active[0].any())
        _ring(draw, gripper, 0.024, TOOL, 2 * FINE, filled=holds)
        return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)

    def close(self) -> None:
        """It holds nothing."""

    def _draw_goal(self, draw: ImageDraw.ImageDraw, goal: np.ndarray) -> None:
        for index in np.flatnonzero(done(goal)):
            way = np.linspace(0, 1, 12)[:, None] * goal
            draw.line(VIEW.pixels(handles(way)[:, index]), fill=WANTED, width=FINE)
            _ring(draw, handles(goal)[index], 0.036, WANTED, 3 * FINE)

    def _draw_element(self, draw: ImageDraw.ImageDraw, index: int, values: np.ndarray) -> None:
        element, handle = ELEMENTS[index], handles(values)[index]
        held_by = handles(np.zeros_like(values))[index] if element.pivot is None else np.array(element.pivot)
        draw.line(VIEW.pixels(np.stack([held_by, handle])), fill=ROD, width=4 * FINE)
        _ring(draw, handle, 0.02, DONE if done(values)[index] else REST, FINE, filled=True)


def _ring(
    draw: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, colour: str, width: int, filled: bool = False
) -> None:
    (x, y), reach = VIEW.pixels(centre[None])[0], VIEW.width * radius / VIEW.span
    draw.ellipse(
        [x - reach, y - reach, x + reach, y + reach], outline=colour, width=width, fill=colour if filled else None
    )
