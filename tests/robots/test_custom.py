"""A user's MJCF or URDF: measured right, driven on its own wheels, refused with one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omnibody.robots.custom import CustomRobotCfg, from_mjcf
from omnibody.robots.errors import UserError
from omnibody.robots.identify import floor_model, run
from omnibody.robots.table import load_robot, make_plant
from omnibody.training.cli import main

INERTIA = '<inertial><mass value="{m}"/><inertia ixx="{i}" iyy="{i}" izz="{i}" ixy="0" ixz="0" iyz="0"/></inertial>'
WHEEL = (
    '<link name="{side}_link">' + INERTIA.format(m=1, i=0.005) + '<collision><origin rpy="1.570796 0 0"/><geometry>'
    '<cylinder radius="0.1" length="0.04"/></geometry></collision></link>'
    '<joint name="{side}" type="continuous"><parent link="base_link"/><child link="{side}_link"/>'
    '<origin xyz="0.05 {y} -0.08"/><axis xyz="0 {axis} 0"/></joint>'
)
CASTER = (
    '<link name="{end}"><collision><geometry><sphere radius="0.04"/></geometry></collision></link>'
    '<joint name="{end}_fix" type="fixed"><parent link="base_link"/><child link="{end}"/>'
    '<origin xyz="{x} 0 -0.14"/></joint>'
)


def urdf(folder: Path, left_axis: int = 1, right_axis: int = 1, casters: bool = True) -> str:
    """A 0.5 x 0.3 x 0.2 m box, 0.08 m over an axle 0.05 m before its middle, with casters at both ends."""
    path = folder / "bot.urdf"
    path.write_text(
        '<robot name="bot"><link name="base_link">' + INERTIA.format(m=20, i=0.5)
        + '<collision><geometry><box size="0.5 0.3 0.2"/></geometry></collision></link>'
        + WHEEL.format(side="left", y=0.2, axis=left_axis) + WHEEL.format(side="right", y=-0.2, axis=right_axis)
        + (CASTER.format(end="front", x=0.2) + CASTER.format(end="rear", x=-0.2) if casters else "") + "</robot>"
    )  # fmt: skip
    return str(path)


def mjcf(folder: Path, body: str, rest: str = "", asset: str = "") -> str:
    path = folder / "bot.xml"
    path.write_text(f"<mujoco><asset>{asset}</asset><worldbody>{rest}{body}</worldbody></mujoco>")
    return str(path)


BOX = '<body name="trunk" pos="0 0 .4"><freejoint/><geom type="box" size=".3 .2 .1" pos=".1 0 -.3" mass="9"/></body>'


def refusal(cfg: CustomRobotCfg) -> str:
    with pytest.raises(UserError) as caught:
        cfg.build()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_urdf_is_measured(tmp_path: Path) -> None:
    embodiment = from_mjcf(urdf(tmp_path), "differential", ("left", "right"))
    size = embodiment.footprint
    np.testing.assert_allclose((size.length, size.width, size.height), (0.5, 0.44, 0.28), atol=1e-5)
    assert embodiment.base_height == pytest.approx(0.18, abs=1e-5)
    assert embodiment.limits.turn_centre == pytest.approx(0.05, abs=1e-6)
    assert embodiment.camera.position[2] + embodiment.base_height == pytest.approx(0.35)
    assert 22.0 < embodiment.mass < 23.0
    assert embodiment.best_tier == "T2" and embodiment.name == "bot"


def test_an_mjcf_off_its_origin_gets_a_symmetric_footprint(tmp_path: Path) -> None:
    floor = '<geom name="floor" type="plane" size="0 0 1"/><light pos="0 0 3"/>'
    embodiment = from_mjcf(mjcf(tmp_path, BOX, floor), "holonomic")
    size = embodiment.footprint
    np.testing.assert_allclose((size.length, size.width, size.height), (0.8, 0.4, 0.2), atol=1e-6)
    assert embodiment.base_height == pytest.approx(0.4) and embodiment.mass == pytest.approx(9.0)
    assert embodiment.limits.holonomic and embodiment.best_tier == "T1"


@pytest.mark.parametrize("axes", [(1, 1), (-1, -1), (1, -1)])
def test_it_drives_on_its_own_wheels_whichever_way_they_turn(tmp_path: Path, axes: tuple[int, int]) -> None:
    embodiment = from_mjcf(urdf(tmp_path, *axes), "differential", ("left", "right"))
    plant = make_plant(embodiment, "T2")
    command = np.array([[0.6, 0.0, 0.0], [0.0, 0.0, 0.8], [-0.3, 0.0, 0.4]])
    track = run(plant, np.tile(command, (100, 1, 1)))
    np.testing.assert_allclose(track.twist[-1][:, [0, 2]], command[:, [0, 2]], atol=0.03)
    model = floor_model(plant)
    rolled = track.qpos[-1, 0, model.joint("left").qposadr[0]] * axes[0] * 0.1
    assert rolled == pytest.approx(track.position[-1, 0, 0], rel=0.03)


def test_t1_imitates_its_t2(tmp_path: Path) -> None:
    embodiment = from_mjcf(urdf(tmp_path), "differential", ("left", "right"))
    commands = np.repeat(np.random.default_rng(0).uniform(-1, 1, (6, 4, 3)), 40, axis=0)
    t1, t2 = (run(make_plant(embodiment, tier), commands).twist for tier in ("T1", "T2"))
    assert np.sqrt(np.mean((t1 - t2) ** 2)) < 0.05 < np.sqrt(np.mean(t2**2)) / 4


def test_wheels_may_be_named_by_their_actuators(tmp_path: Path) -> None:
    wheel = (
        '<body pos="0 {y} 0"><joint name="{side}_hinge" axis="0 1 0"/>'
        '<geom type="cylinder" size=".1 .02" zaxis="0 1 0" mass="1"/></body>'
    )
    body = (
        '<body name="trunk" pos="0 0 .1"><geom type="box" size=".2 .1 .05" mass="9"/>'
        '<geom type="sphere" size=".04" pos=".18 0 -.06"/><geom type="sphere" size=".04" pos="-.18 0 -.06"/>'
        + wheel.format(side="left", y=0.2) + wheel.format(side="right", y=-0.2) + "</body>"
    )  # fmt: skip
    path = Path(mjcf(tmp_path, body))
    motors = "<actuator><motor name='m1' joint='left_hinge'/><motor name='m2' joint='right_hinge'/></actuator></mujoco>"
    path.write_text(path.read_text().replace("</mujoco>", motors))
    assert from_mjcf(str(path), "differential", ("m1", "m2")).wheels == ("left_hinge", "right_hinge")


def test_the_first_keyframe_is_the_rest_pose(tmp_path: Path) -> None:
    shin = '<geom type="capsule" fromto="0 0 0 0 0 -.3" size=".02"/>'
    leg = f'<body pos="0 0 -.3"><joint axis="0 1 0"/>{shin}</body></body>'
    path = Path(mjcf(tmp_path, BOX.replace("</body>", leg)))
    straight = from_mjcf(str(path), "holonomic")
    key = "<keyframe><key name='home' qpos='0 0 .5 1 0 0 0 1.5707963'/></keyframe></mujoco>"
    path.write_text(path.read_text().replace("</mujoco>", key))
    assert straight.base_height == pytest.approx(0.62, abs=1e-3)
    assert from_mjcf(str(path), "holonomic").base_height == pytest.approx(0.4, abs=1e-3)


def test_the_one_small_file_that_makes_it_a_robot(tmp_path: Path) -> None:
    path = urdf(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from omnibody.robots.custom import from_mjcf\n"
        f"EMBODIMENT = from_mjcf({path!r}, 'differential', ('left', 'right'))\n"
    )
    embodiment = load_robot(str(tmp_path / "mine.py"))
    assert embodiment == from_mjcf(path, "differential", ("left", "right"))
    assert embodiment != from_mjcf(path, "differential")


def test_an_ackermann_body_keeps_its_turning_radius(tmp_path: Path) -> None:
    cfg = CustomRobotCfg(urdf(tmp_path), "ackermann", ["left", "right"], turning_radius=0.9)
    embodiment = cfg.build()
    assert embodiment.limits.min_turning_radius == 0.9 and embodiment.limits.turn_centre == pytest.approx(0.05)
    assert not embodiment.limits.holonomic and embodiment.best_tier == "T1"


def test_the_good_files_of_these_tests_are_taken(tmp_path: Path) -> None:
    from_mjcf(mjcf(tmp_path, BOX), "differential")
    from_mjcf(mjcf(tmp_path, BOX.replace("<freejoint/>", "")), "differential")


def test_files_that_will_not_do(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.xml")
    assert f"no file {absent}" in refusal(CustomRobotCfg(absent, "holonomic"))
    hinge = mjcf(tmp_path, BOX.replace("<freejoint/>", '<joint name="post" type="hinge"/>'))
    assert "base 'trunk' hangs on joint 'post'; wanted a free joint" in refusal(CustomRobotCfg(hinge, "holonomic"))
    two = mjcf(tmp_path, BOX + BOX.replace("trunk", "twin"))
    assert "wanted one root body, the base, came ['trunk', 'twin']" in refusal(CustomRobotCfg(two, "holonomic"))
    none = mjcf(tmp_path, "", '<geom type="box" size="1 1 1"/>')
    assert "wanted one root body" in refusal(CustomRobotCfg(none, "holonomic"))
    bare = mjcf(tmp_path, '<body name="trunk"><freejoint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body>')
    assert "no geom" in refusal(CustomRobotCfg(bare, "holonomic"))
    shell = BOX.replace("</body>", '<geom type="mesh" mesh="hull"/></body>')
    mesh = mjcf(tmp_path, shell, asset='<mesh name="hull" file="gone.stl"/>')
    assert "gone.stl" in refusal(CustomRobotCfg(mesh, "holonomic"))
    (tmp_path / "text.xml").write_text("hello")
    assert "text.xml" in refusal(CustomRobotCfg(str(tmp_path / "text.xml"), "holonomic"))


def test_wheels_that_will_not_do(tmp_path: Path) -> None:
    path = urdf(tmp_path)
    typo = refusal(CustomRobotCfg(path, "differential", ["lefft", "right"]))
    assert "unknown robot.wheels 'lefft'; did you mean left" in typo
    assert "left before right" in refusal(CustomRobotCfg(path, "differential", ["right", "left"]))
    sideways = tmp_path / "sideways.urdf"
    sideways.write_text(Path(path).read_text().replace('<axis xyz="0 1 0"/>', '<axis xyz="1 0 0"/>'))
    assert "wanted an axle along y" in refusal(CustomRobotCfg(str(sideways), "differential", ["left", "right"]))
    tipping = urdf(tmp_path, casters=False)
    assert "lack a caster" in refusal(CustomRobotCfg(tipping, "differential", ["left", "right"]))
    lifted = tmp_path / "lifted.urdf"
    skids = Path(urdf(tmp_path)).read_text().replace('<sphere radius="0.04"/>', '<box size="0.06 0.3 0.08"/>')
    lifted.write_text(skids.replace('-0.14"', '-0.16"'))
    assert "reached" in refusal(CustomRobotCfg(str(lifted), "differential", ["left", "right"]))


def test_options_that_will_not_do() -> None:
    with pytest.raises(UserError, match="unknown robot.base 'diferential'; did you mean differential"):
        CustomRobotCfg("bot.urdf", "diferential")
    with pytest.raises(UserError, match=r"robot.speed: wanted a number above 0, came 0.0"):
        CustomRobotCfg("bot.urdf", "holonomic", speed=0.0)
    with pytest.raises(UserError, match=r"robot.wheels: wanted two joints, left and right, came \['left'\]"):
        CustomRobotCfg("bot.urdf", "differential", ["left"])


def test_the_command_line_takes_a_urdf(tmp_path: Path) -> None:
    words = [f"robot.mjcf={urdf(tmp_path)}", "robot.base=differential", "robot.wheels=[left,right]"]
    words += ["checkpoint=expert", "tasks=[goal_nav/single_rack]", "episodes=2", "maps=1", "clips=0"]
    assert main(["eval", *words, f"out={tmp_path / 'report'}"]) == 0
    (cell,) = json.loads((tmp_path / "report/report.json").read_text())["cells"]
    assert (cell["robot"], cell["tier"], cell["n"]) == ("bot", "T2", 2)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["robot.base=holonomic"], "hangs on joint 'post'"),
        (["robot.base=differential", "robot.wheels=[pst,post]"], "unknown robot.wheels 'pst'; did you mean post?"),
        (["robot.base=holonomic", "robot.mjcf=absent.xml"], "no file"),
    ],
)
def test_the_command_line_refuses_in_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    model = mjcf(tmp_path, BOX.replace("<freejoint/>", '<joint name="post" type="hinge"/>'))
    assert main(["collect", f"robot.mjcf={model}", *words, f"out={tmp_path / 'data'}"]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()
