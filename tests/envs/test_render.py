"""Pictures show what stands where: pixel positions in closed form, and the robot never hidden by a wall."""

import math

import mujoco
import numpy as np
import pytest

from omnibody.envs import make_env, render
from omnibody.envs.render import Chase, EnvRenderer, GraphicsError, Pose, Renderer, TopDown, graphics_backend

WORLD = """
<mujoco><worldbody><light pos="0 0 6" dir="0 0 -1" directional="true"/>
<geom type="plane" size="20 20 .1" rgba=".9 .9 .9 1" group="0"/>{wall}
<body name="base" pos="1 -2 .1"><freejoint/><geom type="box" size=".2 .2 .1" rgba="1 0 0 1" group="3"/></body>
</worldbody></mujoco>"""
WALL = '<body name="scene"><geom type="box" pos="0.2 -2 1" size=".05 3 1" rgba="0 1 0 1" group="0"/></body>'


def _reds(picture: np.ndarray) -> np.ndarray:
    """Pixel positions (row, column) of the robot."""
    red, green, blue = (picture[..., k].astype(int) for k in range(3))
    return np.argwhere((red > 80) & (green < red // 2) & (blue < red // 2))


def _draw(view: Chase | TopDown, wall: str = "", goal: Pose | None = None) -> np.ndarray:
    model = mujoco.MjModel.from_xml_string(WORLD.format(wall=wall))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, 320, 240)
    picture = renderer.render(data, view, (1.0, -2.0, 0.0), goal)
    renderer.close()
    return picture


def test_top_down_puts_x_right_and_y_up_to_scale() -> None:
    """8 m over 240 rows are 30 pixels a metre at the floor; the robot's top is 0.2 m nearer to the camera."""
    found = _reds(_draw(TopDown(8.0, (0.0, 0.0)))).mean(0)
    assert found == pytest.approx([120 + 2 * 30, 160 + 1 * 30], abs=2.5)
    assert _reds(_draw(TopDown(8.0))).mean(0) == pytest.approx([120, 160], abs=2.5)  # follows the base


def test_goal_is_marked_where_it_is() -> None:
    plain, marked = _draw(TopDown(8.0, (0.0, 0.0))), _draw(TopDown(8.0, (0.0, 0.0)), goal=(-2.0, 1.0, math.pi / 2))
    changed = np.argwhere(np.abs(plain.astype(int) - marked).sum(-1) > 30)
    rows, columns = changed[:, 0], changed[:, 1]
    assert (rows.max(), np.median(columns)) == (pytest.approx(90 + 0.35 * 30, abs=2), pytest.approx(100, abs=2))
    assert rows.min() == pytest.approx(90 - 0.6 * 30, abs=2.5)  # the arrow points along the heading, up


def test_chase_camera_comes_closer_than_a_wall_behind_the_robot() -> None:
    """Negative control: the same camera placed without looking for walls sees no robot."""
    assert len(_reds(_draw(Chase(distance=2.0)))) > 300
    assert len(_reds(_draw(Chase(distance=2.0), WALL))) > 300

    class Blind(Chase):
        def place(self, camera, pose, model, data) -> None:
            super().place(camera, pose, model, data)
            camera.distance = self.distance

    assert len(_reds(_draw(Blind(distance=2.0), WALL))) == 0


def test_backend_is_chosen_or_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert graphics_backend() in ("egl", "osmesa")
    graphics_backend.cache_clear()
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(GraphicsError, match="MUJOCO_GL: wanted one of egl, osmesa .* came 'glfw'"):
        graphics_backend()
    monkeypatch.undo()
    graphics_backend.cache_clear()


def test_env_renderer_follows_the_state_and_the_scene() -> None:
    env = make_env("carrier", "goal_nav/single_rack", num_envs=2, tier="T0", threads=1)
    env.reset(1)
    renderer = EnvRenderer(env, 160, 120)
    view = TopDown(15.0, (0.0, 0.0))
    first, again, other = renderer.render(0, view), renderer.render(0, view), renderer.render(1, view)
    for _ in range(20):
        env.step(env.expert())
    moved = renderer.render(0, view)
    renderer.close()
    env.close()
    assert first.shape == (120, 160, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)

    def changed(picture: np.ndarray) -> int:
        return int((np.abs(first.astype(int) - picture).sum(-1) > 60).sum())

    assert changed(other) > changed(moved) > 0  # another scene differs more than another moment


def test_a_platform_that_does_not_answer_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_PROBE", "import time; time.sleep(9)")
    monkeypatch.setattr(render, "PROBE_SECONDS", 0.1)
    assert render.probe.__wrapped__("egl") == "no answer in 0.1 s"
