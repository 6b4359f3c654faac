"""The ``omnibody`` command: ``omnibody <verb> [key=value ...]``.

Exit codes: 0 it worked; 2 bad input, told in one line; 130 stopped by Ctrl-C; 1 a defect of ours, with its traceback.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Callable
from typing import NamedTuple

from omnibody.robots.errors import UserError, unknown


class Verb(NamedTuple):
    """What a verb does, in a line, and its ``"module:function"``, which takes the words that follow the verb."""

    help: str
    target: str


VERBS = {
    "demo": Verb("demonstrations to a success table, in minutes", "omnibody.training.demo:main"),
    "collect": Verb("record demonstrations into a dataset", "omnibody.training.collect:main"),
    "import": Verb("turn recordings made elsewhere into a dataset", "omnibody.training.importing:main"),
    "train": Verb("train a policy on a dataset", "omnibody.training.train:main"),
    "rl": Verb("train a residual on a frozen base policy by PPO", "omnibody.training.rl.train:main"),
    "distill": Verb("distil teachers into one student", "omnibody.training.distill.distill:main"),
    "eval": Verb("measure policies on bodies and tasks, write a report", "omnibody.training.evaluate:main"),
    "export": Verb("write a policy as ONNX and check it against torch", "omnibody.training.export:main"),
    "bench": Verb("measure speed against a limit and a peer", "omnibody.training.bench.run:main"),
    "deploy": Verb(
        "drive robots over ROS 2: simulated, a fleet of them, or a real one",
        "omnibody.deploy_ros.workstation.deploy:main",
    ),
    "doctor": Verb("what is installed and usable, and how to get the rest", "omnibody.training.doctor:main"),
    "list": Verb("robots, tasks, policies and checkpoints", "omnibody.training.listing:main"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb (``argv`` without the program's name; the process's own by default); returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    # Torch's threads spin while they wait: 300,000 times where nobody says how often, and where others need the cores a
    # step then takes twenty times as long. Not at all costs a U-Net's training almost half of its speed on two cores.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        return _run(words)
    except UserError as error:
        print(f"omnibody: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        # Only where the user points can these come from, mostly out=.
        print(f"omnibody: {error.filename}: {error.strerror}; choose another path", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _reader_left():
            raise
        sys.stdout = None  # what it still holds cannot be written any more
        return 0
    except KeyboardInterrupt:
        print("\nomnibody: stopped; resume with the same command", file=sys.stderr)
        return 130


def _reader_left() -> bool:
    """Whether it was our output's pipe that broke, as under ``head``, and not one to a worker process."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(_usage())
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        raise unknown("verb", name, VERBS)
    if "--help" in rest or "-h" in rest:
        print(f"usage: omnibody {name} [key=value ...]")
    module, _, function = VERBS[name].target.partition(":")
    verb: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), function)
    return verb(rest) or 0


def _usage() -> str:
    width = max(len(name) for name in VERBS)
    rows = [f"  {name.ljust(width)}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        ["usage: omnibody <verb> [key=value ...]", "", *rows, "", "omnibody <verb> --help lists the keys of a verb"]
    )
