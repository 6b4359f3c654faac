"""The command: quick help, one line for a mistake, exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from omnibody.training.cli import VERBS, Verb, main
from omnibody.training.config import PACKAGE

HEAVY = {"torch", "numpy", "mujoco", "hydra", "omegaconf"}


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that must fail for bad input."""
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("omnibody: ")
    return err.removeprefix("omnibody: ").strip()


def loaded_by(code: str) -> set[str]:
    """Modules that ``code`` prints behind "loaded:"."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.partition("loaded:")[2].split())


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    assert re.findall(r"^  (\S+)  +\S", capsys.readouterr().out, re.MULTILINE) == list(VERBS)


def test_help_loads_nothing_heavy():
    """A time limit would fail on a busy machine; what takes the time is imports, so these are what is checked."""
    code = "import sys; from omnibody.training.cli import main; main(['--help']); print('loaded:', *sys.modules)"
    assert HEAVY & loaded_by(code) == set()
    assert HEAVY & loaded_by(code.replace("import sys", "import sys, torch"))


@pytest.mark.parametrize(("verb", "near"), [("evl", "eval"), ("Train", "train"), ("lst", "list"), ("docter", "doctor")])
def test_an_unknown_verb_is_told_the_nearest(verb, near, capsys):
    assert complaint([verb], capsys).startswith(f"unknown verb {verb!r}; did you mean {near}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps(verb, capsys):
    try:
        code = main([verb, "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert capsys.readouterr().out.startswith(f"usage: omnibody {verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_an_unknown_key(verb, capsys):
    assert "nonsense" in complaint([verb, "nonsense=1"], capsys)


EXPERIMENTS = [path for top in ("policies", "sim_tasks", "training") for path in (PACKAGE / top).rglob("*.yaml")]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_fits_the_verb_it_names(path, capsys):
    """Its first line is the command; its keys are checked before the words, so the complaint is about the word."""
    name = path.relative_to(PACKAGE).with_suffix("").as_posix()
    hash_sign, omnibody, verb, experiment = path.read_text().split()[:4]
    assert (hash_sign, omnibody, experiment) == ("#", "omnibody", f"experiment={name}")
    assert complaint([verb, experiment, "nonsense=1"], capsys).startswith("unknown key 'nonsense'")
    with pytest.raises(AssertionError):
        assert complaint(["doctor", experiment, "nonsense=1"], capsys).startswith("unknown key 'nonsense'")


def test_the_installed_command_exits_with_2():
    command = Path(sys.executable).with_name("omnibody")
    done = subprocess.run([command, "doctor", "jsn=true"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "omnibody: unknown key 'jsn'; did you mean json?\n"


@pytest.fixture
def verb_that(tmp_path, monkeypatch):
    """Adds the verb ``act``, with the given body."""

    def add(body: str) -> None:
        (tmp_path / "acting_verb.py").write_text(f"def main(argv):\n    {body}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "acting_verb", raising=False)
        monkeypatch.setitem(VERBS, "act", Verb("for this test", "acting_verb:main"))

    return add


def test_ctrl_c_says_how_to_go_on(verb_that, capsys):
    verb_that("raise KeyboardInterrupt")
    assert main(["act"]) == 130
    assert capsys.readouterr().err == "\nomnibody: stopped; resume with the same command\n"


def test_a_file_in_the_way_is_told(verb_that, tmp_path, capsys):
    (tmp_path / "taken").touch()
    verb_that("import pathlib; pathlib.Path(argv[0]).mkdir()")
    assert complaint(["act", str(tmp_path / "taken")], capsys) == (
        f"{tmp_path / 'taken'}: File exists; choose another path"
    )


def test_a_worker_that_died_is_not_taken_for_a_reader_that_left(verb_that):
    verb_that("raise BrokenPipeError")
    with pytest.raises(BrokenPipeError):
        main(["act"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_is_no_error(unbuffered):
    command = Path(sys.executable).with_name("omnibody")
    script = f"set -o pipefail; PYTHONUNBUFFERED={unbuffered} {command} --help | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_defect_keeps_its_traceback(verb_that):
    verb_that("raise ValueError('ours')")
    with pytest.raises(ValueError, match="ours"):
        main(["act"])


def test_an_exit_code_is_passed_on(verb_that):
    verb_that("return 3")
    assert main(["act"]) == 3
