"""Training takes the cores it may take, and gives them back."""

import os
import subprocess
import sys

import pytest
import torch

from omnibody.training.threads import all_cores, training_threads, usable_cores

SPINS = "import os; from omnibody.training.cli import main; main(['help']); print(os.environ.get('GOMP_SPINCOUNT'))"


def test_training_has_the_usable_cores_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with all_cores():
        assert torch.get_num_threads() == len(os.sched_getaffinity(0)) == usable_cores()
    assert torch.get_num_threads() == before


def test_processes_of_one_training_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("omnibody.training.threads.usable_cores", lambda: 8)
    assert training_threads() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert training_threads() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")
    assert training_threads() == 1


def test_what_the_user_says_of_threads_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert training_threads() == 5


@pytest.mark.parametrize("said", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE"}])
def test_threads_spin_a_little_unless_the_user_says_how_they_wait(said: dict[str, str]) -> None:
    silent = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    printed = subprocess.run([sys.executable, "-c", SPINS], env=silent | said, capture_output=True, text=True).stdout
    wanted = said.get("GOMP_SPINCOUNT", "None" if said else "10000")
    assert printed.split()[-1] == wanted
