"""What the benchmarks print, and that a real one runs."""

import json
import time
from pathlib import Path

import pytest

from omnibody.training.bench.env import EnvBenchCfg, env_rows
from omnibody.training.bench.peers import PeersBenchCfg, peers_rows, random_data
from omnibody.training.bench.rows import Row, interleaved, print_rows, rate

KEYS = {"name", "value", "unit", "limit", "peer", "ratio_to_limit", "ratio_to_peer"}


def test_json_is_one_list_of_rows_and_nothing_else(capsys):
    print_rows([Row("a", 3.0, "steps/s", limit=4.0, peer=2.0), Row("b", 1.0, "ms")], as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [set(row) for row in rows] == [KEYS, KEYS]
    assert (rows[0]["ratio_to_limit"], rows[0]["ratio_to_peer"]) == (0.75, 1.5)
    assert rows[1]["ratio_to_limit"] is None and rows[1]["ratio_to_peer"] is None


def test_the_table_shows_ratios_and_gaps(capsys):
    print_rows([Row("a", 3.0, "steps/s", limit=4.0)], as_json=False)
    assert "0.75" in capsys.readouterr().out.splitlines()[1]


def test_a_rate_is_units_per_second_and_the_first_call_is_not_counted():
    calls = []

    def work() -> int:
        calls.append(time.perf_counter())
        time.sleep(0.2 if len(calls) == 1 else 0.01)
        return 5

    # At least 10 ms a call: never more than 500 a second; a busy machine only makes it less.
    assert rate(work, 0.3) <= 500.0
    assert len(calls) >= 2


def test_contestants_take_turns():
    order = []

    def contestant(name: str):
        def work() -> int:
            order.append(name)
            time.sleep(0.005)
            return 1

        return work

    rates = interleaved([contestant("a"), contestant("b")], seconds=0.01, rounds=2)
    assert [len(row) for row in rates] == [2, 2]
    assert "".join(dict.fromkeys(order)) == "ab" and order[0] == "a" and order[-1] == "b"
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["a", "b", "a", "b"]


@pytest.mark.slow
def test_the_env_bench_measures_ours_the_limit_and_the_peer():
    row = env_rows(EnvBenchCfg(robots=["carrier"], num_envs=2, seconds=0.5, rounds=1))[0]
    assert row.value > 0.0 and row.limit and row.peer
    assert 0.0 < row.ratio_to_limit < 1.2  # nothing beats the raw loop but by noise


@pytest.mark.slow
def test_the_peers_bench_trains_and_plays_both_on_the_same_data(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    data = str(random_data(tmp_path))
    cfg = PeersBenchCfg(data, minutes=0.3, episodes=1, rounds=1, steps=30, calls=3, width=16)
    rows = peers_rows(cfg, folder)
    parameters, training, calls, reading, score = rows
    assert all(row.peer is not None and row.value > 0 for row in rows[:-1])
    assert 0.5 < (parameters.ratio_to_peer or 0) < 2  # 1.03 at the default width; ours has a code of 4 x width
    assert training.limit and calls.limit and reading.peer
    assert 0 <= score.value <= 1 and score.peer is not None and 0 <= score.peer <= 1
