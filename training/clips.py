"""Short films of single episodes: behind the robot and from above where OpenGL works, else the path as a drawing."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from omnibody.envs.metaworld import MetaWorldEnv
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.render import Chase, EnvRenderer, TopDown, graphics_backend
from omnibody.envs.vec_env import Step, VecEnv
from omnibody.policies.policy import Obs, Policy
from omnibody.robots.spec import Footprint
from omnibody.sim_tasks.block_push import BlockPush
from omnibody.sim_tasks.desk import Desk
from omnibody.sim_tasks.goal_nav import GoalNav
from omnibody.sim_tasks.scene import Scene
from omnibody.training.block_push_clip import BlockPushCamera
from omnibody.training.desk_clip import DeskCamera
from omnibody.training.metaworld_clip import MetaWorldCamera
from omnibody.training.rollout import PATH_SECONDS, EpisodeRecord, Pose, play
from omnibody.training.table_clip import TableCamera

MAX_BYTES = 1_000_000
FRAME_SECONDS, SPEED = 0.3, 2.0  # simulated time between frames; how much faster than life they are shown
METAWORLD = (0.0625, 0.5)  # the same of Meta-World, whose tasks take a second
HEIGHT = 240  # pixels; the picture from behind is 4:3, the one from above square
INK = {"wall": "#58616b", "rack": "#7d8fa5", "furniture": "#a58a6d", "clutter": "#c9a27c"}


@dataclass(frozen=True)
class Clip:
    """An animated WebP picture, how its episode ended, how it was drawn, and how much faster than life it is."""

    webp: bytes
    outcome: str
    drawn: str
    speed: float = SPEED


def film(policy: Policy | None, env: VecEnv, seed: int, episode: int, latency: int = 0) -> Clip:
    """Play an episode again in ``env`` (of one world) and film it; raises `GraphicsError` where nothing can draw."""
    camera = _camera(env)
    seconds, speed = METAWORLD if isinstance(env, MetaWorldEnv) else (FRAME_SECONDS, SPEED)
    filming = _Filming(env, camera.shoot, seconds)
    record = next(play(policy, filming, episode + 1, seed, set(range(episode)), latency))
    camera.close()
    return Clip(encode(filming.frames, seconds / speed), record.outcome, camera.drawn, speed)


def _camera(env: VecEnv) -> _BaseCamera | BlockPushCamera | DeskCamera | MetaWorldCamera | TableCamera:
    """What looks at the first world of an env."""
    if isinstance(env, MujocoEnv):
        return _BaseCamera(env)
    if isinstance(env, MetaWorldEnv):
        return MetaWorldCamera(env)
    if isinstance(env.task, BlockPush):
        return BlockPushCamera(env)
    return DeskCamera(env) if isinstance(env.task, Desk) else TableCamera(env)


class _BaseCamera:
    """Pictures of a mobile base: from behind, and the whole scene from above."""

    def __init__(self, env: MujocoEnv) -> None:
        self.drawn = f"MuJoCo, {graphics_backend()}"
        self._env, self._renderer = env, EnvRenderer(env, HEIGHT * 4 // 3, HEIGHT)

    def shoot(self) -> Image.Image:
        """The present picture."""
        task = self._env.task
        assert isinstance(task, GoalNav), f"clips are of goal_nav, not {task.name}"
        goal, scene = tuple(task.goal[0].tolist()), task.scene(self._env.scene(0))
        (left, bottom), (right, top) = scene.low, scene.high
        above = TopDown(1.04 * max(right - left, top - bottom), ((left + right) / 2, (bottom + top) / 2))
        square = self._renderer.render(0, above, goal)[:, HEIGHT // 6 : HEIGHT // 6 + HEIGHT]
        return Image.fromarray(np.concatenate([self._renderer.render(0, Chase(), goal), square], axis=1))

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()


class _Filming:
    """A ``VecEnv`` of one world that keeps pictures of what it does, one every ``seconds``."""

    def __init__(self, env: VecEnv, shoot: Callable[[], Image.Image], seconds: float) -> None:
        self.env, self.num_envs, self.spec, self.dt = env, 1, env.spec, env.dt
        self.embodiment, self.task = env.embodiment, env.task
        self._shoot = shoot
        self.frames: list[Image.Image] = []
        self._every, self._steps = max(1, round(seconds / env.dt)), 0

    episode = property(lambda self: self.env.episode)
    world = property(lambda self: self.env.world)

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Begin, and take the first picture."""
        obs = self.env.reset(seed, first_episode)
        self.frames.append(self._shoot())
        return obs

    def step(self, action: Tensor) -> Step:
        """Go on, and take a picture now and then."""
        step = self.env.step(action)
        self._steps += 1
        # After the last step the env already shows the next episode.
        if self._steps % self._every == 0 and not bool(step.done[0]):
            self.frames.append(self._shoot())
        return step

    def expert(self) -> Tensor:
        """The expert's commands."""
        return self.env.expert()

    def close(self) -> None:
        """Close the env."""
        self.env.close()


def sketch(record: EpisodeRecord, scene: Scene, goal: Pose, footprint: Footprint) -> Clip:
    """The recorded path of an episode as a moving drawing from above, for machines without OpenGL."""
    (left, bottom), (right, top) = scene.low, scene.high
    scale = 1.5 * HEIGHT / max(right - left, top - bottom)
    size = (round(scale * (right - left)), round(scale * (top - bottom)))

    def pixels(points: np.ndarray) -> list[tuple[float, float]]:
        return [(scale * (x - left), scale * (top - y)) for x, y in points]

    ground = Image.new("RGB", size, "#f4f2ec")
    draw = ImageDraw.Draw(ground)
    for box in scene.boxes:
        draw.polygon(pixels(_corners((box.x, box.y, box.yaw), box.length, box.width)), fill=INK[box.kind])
    ring = pixels(np.array([(goal[0] - 0.35, goal[1] + 0.35), (goal[0] + 0.35, goal[1] - 0.35)]))
    draw.ellipse(ring, outline="#0072B2", width=2)
    tip = np.array([goal[:2], (goal[0] + 0.6 * math.cos(goal[2]), goal[1] + 0.6 * math.sin(goal[2]))])
    draw.line(pixels(tip), fill="#0072B2", width=2)
    frames = []
    for count, pose in enumerate(record.path, 1):
        frame = ground.copy()
        draw = ImageDraw.Draw(frame)
        if count > 1:
            draw.line(pixels(np.array(record.path[:count])[:, :2]), fill="#D55E00", width=2)
        draw.polygon(pixels(_corners(pose, footprint.length, footprint.width)), fill="#1c2733")
        nose = np.array([pose[:2], _corners(pose, footprint.length, 0.0)[0]])
        draw.line(pixels(nose), fill="#ffffff", width=2)
        frames.append(frame)
    return Clip(encode(frames, PATH_SECONDS / SPEED), record.outcome, "a drawing of the recorded path")


def _corners(pose: Pose, length: float, width: float) -> np.ndarray:
    """Corners (4, 2) of a rectangle at a ground pose."""
    x, y, yaw = pose
    around = 0.5 * np.array([(length, width), (length, -width), (-length, -width), (-length, width)])
    c, s = math.cos(yaw), math.sin(yaw)
    return around @ np.array([[c, s], [-s, c]]) + (x, y)


def encode(frames: Sequence[Image.Image], seconds: float) -> bytes:
    """An endless animated WebP picture of at most MAX_BYTES, each frame shown for ``seconds``."""
    for step, quality in ((1, 65), (1, 40), (2, 40), (4, 30), (8, 20)):
        data, kept = io.BytesIO(), frames[::step]
        kept[0].save(
            data,
            "WEBP",
            save_all=True,
            append_images=kept[1:],
            duration=round(1000 * seconds * step),
            loop=0,
            quality=quality,
            method=3,
        )
        if data.tell() <= MAX_BYTES:
            return data.getvalue()
    raise ValueError(f"a clip of {len(frames)} frames of {frames[0].size} pixels does not fit into {MAX_BYTES} bytes")
