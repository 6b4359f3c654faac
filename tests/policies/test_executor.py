"""The executor plays each chunk's rows in their turn, env by env, and knows what a call that takes time costs."""

import numpy as np
import pytest
import torch
from torch import Tensor

from omnibody.policies.executor import ExecutionLog, Executor, longest_latency
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import load_body

CONTEXT = Context(load_body("pusher"))
SPEC = IOSpec({"time": Field((1,), "float32", "1", (0.0,), (99.0,))}, CONTEXT.embodiment.action, 10.0)


class Telling(Policy):
    """Its actions say when they were planned and for when, (call's time, own time); it counts what it was shown."""

    def __init__(self, horizon: int, action_steps: int) -> None:
        super().__init__()
        self.spec, self.horizon, self.action_steps = SPEC, horizon, action_steps
        self.evaluations = 3
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.calls: list[int] = []  # batch sizes, for the tests to look at
        self.told: list[list[int]] = []

    def begin(self, context: Context, batch_size: int) -> State:
        return {"seen": torch.zeros(batch_size, 1), "committed": torch.zeros(batch_size, 1, dtype=torch.int64)}

    def observe(self, obs: Obs, state: State) -> State:
        assert torch.equal(obs["time"], state["seen"])  # every step is shown, once and in order
        return {**state, "seen": state["seen"] + 1}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        self.calls.append(len(obs["time"]))
        self.told.append(state["committed"][:, 0].tolist())
        now = self.scale * obs["time"]
        own = now + torch.arange(self.horizon)
        return torch.stack([now.expand_as(own), own], -1), self.observe(obs, state)


def played(policy: Policy, ends: list[int], steps: int, latency: int = 0) -> list[list[tuple[int, int]]]:
    """(call's time, own time) of every step of envs whose episodes last ``ends`` steps."""
    executor, time = Executor(policy, CONTEXT, len(ends), latency), torch.zeros(len(ends))
    rows: list[list[tuple[int, int]]] = [[] for _ in ends]
    for _ in range(steps):
        action = executor.act({"time": time[:, None]})
        for row, (called, own) in enumerate(action.int().tolist()):
            rows[row].append((called, own))
        time = time + 1
        done = time >= torch.tensor(ends)
        if bool(done.any()):
            executor.restart(done)
            time = torch.where(done, 0, time)
    return rows


def test_chunks_are_played_whole_and_episodes_begin_anew() -> None:
    policy = Telling(horizon=6, action_steps=4)
    first, second = played(policy, [10, 7], 20)
    for row, length in ((first, 10), (second, 7)):
        for step, (called, own) in enumerate(row):
            assert own == step % length and called == own - own % 4
    assert set(policy.calls) == {1, 2}  # only envs that need a chunk are computed
    alone = played(Telling(6, 4), [7], 20)[0]
    assert alone == second
    every = played(Telling(6, 1), [10, 7], 20)[0]
    assert every != first and all(called == own for called, own in every)  # a chunk of 1 replans every step


@pytest.mark.parametrize("latency", [1, 3, 4])
def test_with_latency_the_old_plan_is_played_until_the_new_one_is_there(latency: int) -> None:
    policy = Telling(horizon=8, action_steps=4)
    row = played(policy, [15], 15, latency)[0]
    for step, (called, own) in enumerate(row):
        assert own == step  # every action is the one that was planned for its step
        newest = step - step % 4
        assert called == (newest if newest == 0 or step - newest >= latency else newest - 4)
    assert policy.told[0] == [0] and policy.told[1:] == [[latency]] * (len(policy.told) - 1)


def test_envs_out_of_step_do_not_disturb_each_other_with_latency() -> None:
    both = played(Telling(8, 4), [9, 14], 40, latency=2)
    assert both == [played(Telling(8, 4), [end], 40, latency=2)[0] for end in (9, 14)]


def test_more_latency_than_the_chunk_has_is_refused() -> None:
    with pytest.raises(UserError, match="latency: wanted 0 to 4 steps"):
        Executor(Telling(16, 4), CONTEXT, 1, latency=5)
    executor = Executor(Telling(5, 4), CONTEXT, 1, latency=2)
    with pytest.raises(UserError, match="wanted chunks of action_steps \\+ latency = 6 actions, came 5"):
        executor.act({"time": torch.zeros(1, 1)})


def test_the_longest_latency_is_what_chunk_and_policy_allow() -> None:

    class Short(Telling):
        """It keeps to at most two planned actions."""

        def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
            if int(state["committed"].max()) > 2:
                raise UserError("committed: too many")
            return super().act(obs, {**state, "seen": obs["time"]})

    assert [longest_latency(Short(horizon, 4), CONTEXT) for horizon in (4, 5, 6, 20)] == [0, 1, 2, 2]


def test_the_number_of_calls_grows_with_the_steps_and_not_faster() -> None:
    for steps in (40, 400):
        policy = Telling(8, 8)
        played(policy, [steps + 1], steps)
        assert len(policy.calls) == steps // 8 and set(policy.calls) == {1}


def test_the_log_holds_evaluations_jumps_and_jerk() -> None:
    log = ExecutionLog(1, rate_hz=2.0)
    actions = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 5.0])
    for step, value in enumerate(actions):
        first = torch.tensor([step % 3 == 0])
        log.add(torch.tensor([[value, 0.0]]), called=first, switched=first, milliseconds=1.0 + step)
    measures = log.measures(0, evaluations=6)
    assert measures["nfe_per_action"] == 6 * 2 / 6
    assert measures["chunk_jump"] == 1.0  # the one boundary, from 0 to 1; the leap to 5 is inside a chunk
    assert measures["jerk"] == pytest.approx(8.0 * np.abs(np.diff(actions, 3)).mean())
    assert log.milliseconds(0) == [1.0, 4.0]
    log.restart(torch.tensor([True]))
    assert log.measures(0, 6) == {"nfe_per_action": 0.0, "chunk_jump": 0.0, "jerk": 0.0} and log.milliseconds(0) == []
