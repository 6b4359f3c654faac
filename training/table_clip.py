"""Pictures of a Push-T table from above, as its screen shows it: x to the right, y down."""

from __future__ import annotations

from PIL import Image, ImageDraw

from omnibody.envs.vec_env import VecEnv
from omnibody.sim_tasks import tee
from omnibody.sim_tasks.push_t import PushT

SIDE, FINE = 256, 3  # pixels of a picture, and how much finer it is drawn before it is made smaller
GROUND, EDGE, GOAL, BLOCK, TOOL = "#f4f2ec", "#58616b", "#a8d8b9", "#5a6b7d", "#0072B2"


class TableCamera:
    """Looks at the first table of an env."""

    drawn = "a drawing of the simulated table"

    def __init__(self, env: VecEnv) -> None:
        assert isinstance(env.task, PushT), f"this is no table but {env.task.name}"
        self._env, self._task = env, env.task

    def shoot(self) -> Image.Image:
        """The present picture: the goal, the T, the tool."""
        world, tool = self._env.world, self._task.body
        scale = SIDE * FINE / tool.size
        picture = Image.new("RGB", (SIDE * FINE, SIDE * FINE), GROUND)
        draw = ImageDraw.Draw(picture)
        draw.rectangle([0, 0, SIDE * FINE - 1, SIDE * FINE - 1], outline=EDGE, width=round(6 * scale))
        for pose, colour in ((self._task.goal[0], GOAL), (world.block[0].numpy(), BLOCK)):
            draw.polygon([tuple(corner) for corner in (scale * tee.corners(pose)).tolist()], fill=colour)
        x, y = (scale * world.agent[0].numpy()).tolist()
        reach = scale * tool.radius
        draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=TOOL)
        return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)

    def close(self) -> None:
        """It holds nothing."""
