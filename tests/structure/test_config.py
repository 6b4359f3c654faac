"""`parse`: real dataclasses from words; a mistake is one line that names the key."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from omegaconf import MISSING

from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_robot
from omnibody.training.config import BODY, group, parse


class Speed(Enum):
    slow = 1
    fast = 2


@dataclass
class OptimizerCfg:
    lr: float = 1e-3  # step size
    # steps until the
    # full step size
    warmup: int = 3


@dataclass
class BaseCfg:
    seed: int = 0  # of everything random


@dataclass
class RunCfg(BaseCfg):
    """Run something."""

    out: str = MISSING  # folder for the results
    limit: int | None = None
    note: str | None = None
    json: bool = False
    speed: Speed = Speed.fast
    robots: list[str] = field(default_factory=lambda: ["carrier"])  # bodies
    sizes: list[int] = field(
        default_factory=lambda: [1, 2],
    )  # two numbers
    weights: dict[str, float] = field(default_factory=dict)
    optimizer: OptimizerCfg = field(default_factory=lambda: OptimizerCfg(lr=0.5))
    names: dict[str, str] = field(default_factory=lambda: {"first": "f"})

    def __post_init__(self):
        if len(self.sizes) != 2:
            raise ValueError(f"sizes: wanted two numbers, came {self.sizes}")


@dataclass
class PolicyRunCfg:
    """Run a policy."""

    policy: Any = group("policy", "compass_base")  # what to run
    steps: int = 5


def test_defaults_make_the_dataclass():
    assert parse(RunCfg, ["out=x"]) == RunCfg(out="x")


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("robots=[go2,spot]", "robots", ["go2", "spot"]),
        ("robots=[goal_nav/single_rack]", "robots", ["goal_nav/single_rack"]),
        ("robots=[]", "robots", []),
        ("note=null", "note", None),
        ("note=../a/b.c-d_e", "note", "../a/b.c-d_e"),
        ("note=~/a b,(c)='d' \"e\" {f} [g]\\", "note", "~/a b,(c)='d' \"e\" {f} [g]\\"),
        ("note='a,b'", "note", "a,b"),
        ("note=12", "note", "12"),
        ("note=", "note", ""),
        ("limit=3", "limit", 3),
        ("json=true", "json", True),
        ("--json", "json", True),
        ("speed=slow", "speed", Speed.slow),
        ("weights.a=2", "weights", {"a": 2.0}),
        ("weights={a: 1, b: 2}", "weights", {"a": 1.0, "b": 2.0}),
        ("optimizer.lr=1", "optimizer", OptimizerCfg(lr=1.0)),
        ("optimizer.warmup=9", "optimizer", OptimizerCfg(lr=0.5, warmup=9)),
        ("names.a=~/b c", "names", {"first": "f", "a": "~/b c"}),
        ("seed=7", "seed", 7),
    ],
)
def test_a_word_sets_its_key_and_no_other(word, name, value):
    assert parse(RunCfg, ["out=x", word]) == RunCfg(**{"out": "x", name: value})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ot=x", "unknown key 'ot'; did you mean out"),
        ("lr=1", "unknown key 'lr'; did you mean optimizer.lr?"),
        ("optimizer.lrr=1", "unknown key 'optimizer.lrr'; did you mean optimizer.lr"),
        ("+seed=1", "unknown key '+seed'; did you mean seed"),
        ("limit=many", "limit: wanted int | None, came 'many'"),
        ("limit=1.5", "limit: wanted int | None, came '1.5'"),
        ("limit=1,2", "limit: wanted int | None, came 1,2; a list is written [a,b]"),
        ("optimizer.lr=fast", "optimizer.lr: wanted float, came 'fast'"),
        ("optimizer=3", "optimizer: wanted OptimizerCfg, came '3'"),
        ("robots=go2", "robots: wanted list[str], came 'go2'"),
        ("robots=[go2", "robots: wanted list[str], came [go2, which cannot be read"),
        ("sizes=[a,b]", "sizes: wanted list[int], came '[a,b]'"),
        ("sizes=[1]", "sizes: wanted two numbers, came [1]"),
        ("weights.a=much", "weights.a: wanted float, came 'much'"),
        ("weights.a.b=1", "unknown key 'weights.a.b'"),
        ("speed=quick", "speed: wanted slow|fast, came 'quick'"),
        ("out", "wanted key=value, came 'out'"),
        ("--out", "unknown option '--out'; did you mean out="),
        ("--seed=1", "wanted key=value, came '--seed=1'"),
        ("note=${nothing}", "note: wanted str | None, came '${nothing}'"),
        ("experiment=nothing", "unknown experiment 'nothing'"),
    ],
)
def test_a_mistake_is_named(word, message):
    with pytest.raises(UserError) as error:
        parse(RunCfg, [word] if word.startswith("out") else ["out=x", word])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@dataclass
class DictCfg:
    teachers: dict[str, str] = MISSING


def test_a_required_dict_can_be_filled_name_by_name():
    assert parse(DictCfg, ["teachers.a=x/y", "teachers.b=~/z"]) == DictCfg({"a": "x/y", "b": "~/z"})
    assert parse(DictCfg, ["teachers={a: x/y}"]) == DictCfg({"a": "x/y"})
    with pytest.raises(UserError, match="teachers: wanted dict.str, str., nothing came"):
        parse(DictCfg, [])


def test_a_required_key_is_asked_for():
    with pytest.raises(UserError, match="out: wanted str, nothing came; add out=<folder for the results>"):
        parse(RunCfg, [])


def test_words_win_over_the_experiment_and_it_over_the_defaults(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "quick.yaml").write_text(
        "seed: 4\nsizes: [3, 4]\noptimizer: {lr: 1e-2}\nweights: {a: 1}\nout: there\n"
    )
    words = ["experiment=policies/quick", "seed=5", "optimizer.warmup=9"]
    wanted = RunCfg(
        seed=5, sizes=[3, 4], optimizer=OptimizerCfg(lr=0.01, warmup=9), weights={"a": 1.0}, out="there"
    )  # the float is written as people write it, which plain YAML takes for text
    assert parse(RunCfg, words, experiment_dir=tmp_path) == wanted
    assert parse(RunCfg, [f"experiment={tmp_path}/policies/quick.yaml", *words[1:]]) == wanted
    with pytest.raises(UserError, match="unknown experiment 'policies/quik'; did you mean policies/quick?"):
        parse(RunCfg, ["experiment=policies/quik"], experiment_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "unknown key 'sed'; did you mean seed"),
        ("optimizer: {rate: 1}", "unknown key 'optimizer.rate'"),
        ("optimizer: {lr: quick}", "optimizer.lr: wanted float, came 'quick'"),
        ("- a", "wanted keys and values, came a list"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_in_an_experiment_is_named(text, message, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        parse(RunCfg, ["out=x", f"experiment={tmp_path / 'e.yaml'}"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_help_prints_every_key_with_type_default_and_comment(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(RunCfg, ["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("=")[0].strip(): line.split("=", 1)[1].split(maxsplit=2) for line in lines[1:]}
    assert lines[0] == "Run something."
    assert rows["out"] == ["str", "(required)", "folder for the results"]
    assert rows["seed"] == ["int", "0", "of everything random"]
    assert rows["optimizer.warmup"] == ["int", "3", "full step size"]
    assert rows["optimizer.lr"] == ["float", "0.5", "step size"]
    assert rows["sizes"] == ["list[int]", "[1,2]", "two numbers"]
    assert rows["speed"] == ["slow|fast", "fast"]
    assert rows["json"] == ["bool", "false"]
    assert "optimizer" not in rows


def test_a_group_holds_the_config_of_the_member_chosen(capsys):
    assert parse(PolicyRunCfg, []) == PolicyRunCfg(policy=CompassBaseCfg())
    chosen = parse(PolicyRunCfg, ["policy=compass_base", "policy.policy_width=32", "steps=6"])
    assert chosen == PolicyRunCfg(policy=CompassBaseCfg(policy_width=32), steps=6)
    with pytest.raises(UserError, match="unknown policy 'compas_base'; did you mean compass_base"):
        parse(PolicyRunCfg, ["policy=compas_base"])
    with pytest.raises(UserError, match="unknown key 'policy.policy_widht'; did you mean policy.policy_width"):
        parse(PolicyRunCfg, ["policy.policy_widht=3"])
    with pytest.raises(SystemExit):
        parse(PolicyRunCfg, ["--help"])
    assert "policy.policy_width=" in capsys.readouterr().out


@dataclass
class DriveCfg:
    """Drive something."""

    robot: str = field(default="go2", metadata=BODY)  # the body


@dataclass
class FleetCfg:
    robots: list[str] = field(default_factory=lambda: ["go2"], metadata=BODY)


BOX = '<mujoco><worldbody><body pos="0 0 .1"><geom type="box" size=".3 .2 .1" mass="9"/></body></worldbody></mujoco>'
OWN = ["robot.base=holonomic", "robot.speed=0.7"]


@pytest.fixture
def model(tmp_path):
    """A user's own body; the blank and the comma in its path need no care."""
    path = tmp_path / "a, box.xml"
    path.write_text(BOX)
    return f"robot.mjcf={path}"


def test_a_body_of_ones_own_stands_where_a_name_may_stand(model):
    assert parse(DriveCfg, []).robot == "go2"
    body = load_robot(parse(DriveCfg, [model, *OWN]).robot)
    assert (body.name, body.limits.velocity_high[0], body.limits.holonomic) == ("a, box", 0.7, True)
    assert body is load_robot(parse(DriveCfg, [*OWN, model]).robot)
    assert load_robot(parse(DriveCfg, [model, *OWN, "robot.name=crate"]).robot).name == "crate"


def test_it_comes_instead_of_the_default_bodies_and_beside_named_ones(model):
    assert [load_robot(robot).name for robot in parse(FleetCfg, [model, *OWN]).robots] == ["a, box"]
    beside = parse(FleetCfg, [model, *OWN, "robots=[spot,go1]"]).robots
    assert [load_robot(robot).name for robot in beside] == ["spot", "go1", "a, box"]


def test_an_experiment_may_describe_it_and_words_win(model, tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text(f"robot: {{mjcf: {model.partition('=')[2]!r}, base: holonomic, speed: 0.7, wheels: []}}\n")
    words = [f"experiment={file}"]
    assert parse(DriveCfg, words).robot == parse(DriveCfg, [model, *OWN]).robot
    assert load_robot(parse(DriveCfg, [*words, "robot.speed=0.4"]).robot).limits.velocity_high[0] == 0.4
    assert parse(DriveCfg, [*words, "robot=spot"]).robot == "spot"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["robot.base=holonomic"], "robot.mjcf: wanted str, nothing came; add robot.mjcf=<MJCF or URDF"),
        (["robot.mjcf=a.xml"], "robot.base: wanted str, nothing came; add robot.base=<how it moves: differential"),
        (["robot.mjcf=a.xml", "robot.base=holnomic"], "unknown robot.base 'holnomic'; did you mean holonomic?"),
        (["robot.mjcf=a.xml", "robot.bas=holonomic"], "unknown key 'robot.bas'; did you mean robot.base"),
        (["robot.mjcf=a.xml", "robot.base=holonomic", "robot.speed=fast"], "robot.speed: wanted float, came 'fast'"),
        (["robot.mjcf=a.xml", "robot=go2"], "robot: wanted a name or robot.mjcf=..., came both"),
    ],
)
def test_a_mistake_in_a_body_of_ones_own_is_named(words, message):
    with pytest.raises(UserError) as error:
        parse(DriveCfg, words)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_help_lists_the_keys_of_a_body_of_ones_own_and_requires_none(capsys):
    for cfg, has in ((DriveCfg, True), (DictCfg, False)):
        with pytest.raises(SystemExit):
            parse(cfg, ["--help"])
        out = capsys.readouterr().out
        assert ("robot.mjcf=" in out) is has
        assert not [line for line in out.splitlines() if "robot." in line and "(required)" in line]


def test_an_experiment_chooses_a_member(tmp_path):
    (tmp_path / "e.yaml").write_text("defaults: [{policy: compass_base}]\npolicy: {policy_width: 16}\n")
    chosen = parse(PolicyRunCfg, [f"experiment={tmp_path / 'e.yaml'}"])
    assert chosen == PolicyRunCfg(policy=CompassBaseCfg(policy_width=16))
