"""The policy: restarts, streaming, history, goals, fixed prefixes, and a two-mode toy."""

import dataclasses

import pytest
import torch

from omnibody.policies.batch import Batch, fake_batch, random_values
from omnibody.policies.checkpoint import load_policy, save_pretrained
from omnibody.policies.diffusion.config import DiffusionCfg, Net, Objective, ProcessName
from omnibody.policies.diffusion.images import ImageEncoder
from omnibody.policies.diffusion.parameterisation import Prediction
from omnibody.policies.diffusion.policy import Diffusion
from omnibody.policies.diffusion.processes import perturb
from omnibody.policies.diffusion.rules import Rule
from omnibody.policies.diffusion.statistics import SIGMA_DATA
from omnibody.policies.policy import Context, where_state
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import load_robot

SPEC = IOSpec(
    obs={
        "place": Field((2,), "float32", "m", (-2.0, 3.0), (4.0, 3.0)),  # the second element is constant
        "goal": Field((2,), "float32", "m", (-1.0, -1.0), (1.0, 1.0)),
    },
    action=Field((2,), "float32", "m/s", (0.0, 0.0), (4.0, 4.0)),
    rate_hz=10.0,
)
CONTEXT = Context(load_robot("carrier"))
STREAM = {"streaming": True, "levels": {"staircase": 0.8, "constant": 0.2}}
PREFIX = {"prefix": 2, "levels": {"prefix": 1.0}}
BESO = {"process": ProcessName.EDM, "prediction": Prediction.EDM, "past": 1}
GOAL = {"obs_keys": ["place"], "goal_keys": ["goal"], "goal_dropout": 0.1}
SHORTCUT = {"objective": Objective.SHORTCUT, "steps": 1}
CONSISTENCY = {"objective": Objective.CONSISTENCY, "rule": Rule.JUMP, "steps": 2}
RELATIVE = {"relative_to": "place"}
MEMBERS = [{}, STREAM, PREFIX, BESO, GOAL | {"guidance": 2.0}, SHORTCUT, CONSISTENCY, RELATIVE, RELATIVE | STREAM]


def made(seed: int = 0, **settings: object) -> Diffusion:
    torch.manual_seed(seed)
    policy = dataclasses.replace(DiffusionCfg.tiny(), **settings).build(SPEC)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # a fresh network says 0 to everything
    return policy.eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = rng(seed)
    return {key: random_values(field, (size,), generator) for key, field in SPEC.obs.items()}


def windows(policy: Diffusion, size: int, seed: int = 0) -> Batch:
    return fake_batch(SPEC, size, 2, 1 + policy.cfg.horizon, rng(seed))


@torch.no_grad()
@pytest.mark.parametrize("net", Net)
@pytest.mark.parametrize("member", MEMBERS)
def test_a_restarted_row_acts_like_a_fresh_one(member: dict[str, object], net: Net) -> None:
    policy, obs = made(net=net, **member), observed(2)
    fresh = policy.begin(CONTEXT, 2)
    _, later = policy.act(observed(2, seed=5), fresh, rng(1))
    mixed = where_state(torch.tensor([True, False]), fresh, later)
    first, kept, both = (policy.act(obs, state, rng(2))[0] for state in (fresh, later, mixed))
    torch.testing.assert_close(both[0], first[0])
    torch.testing.assert_close(both[1], kept[1])
    assert not torch.allclose(first[1], kept[1], atol=1e-4)
    assert first.shape == (2, 4, 2) and (first >= 0).all() and (first <= 4).all()


@torch.no_grad()
@pytest.mark.parametrize("member", MEMBERS)
def test_rows_do_not_depend_on_their_neighbours_nor_calls_on_luck(member: dict[str, object]) -> None:
    policy, obs = made(**member), observed(3)
    alone = {key: value[:1] for key, value in obs.items()}
    together, one = policy.act(obs, policy.begin(CONTEXT, 3))[0], policy.act(alone, policy.begin(CONTEXT, 1))[0]
    torch.testing.assert_close(together[:1], one)
    assert torch.equal(one, policy.act(alone, policy.begin(CONTEXT, 1))[0])
    assert not torch.allclose(one, policy.act(alone, policy.begin(CONTEXT, 1), rng(3))[0], atol=1e-4)


@torch.no_grad()
def test_calls_without_a_generator_draw_new_noise_each_the_same_in_every_episode() -> None:
    policy, obs = made(obs_steps=1), observed(1)
    acts, state = [], policy.begin(CONTEXT, 1)
    for _ in range(5):
        action, state = policy.act(obs, state)
        acts.append(action)
    assert not any(torch.allclose(acts[0], later, atol=1e-4) for later in acts[1:])
    assert torch.equal(policy.act(obs, policy.begin(CONTEXT, 1) | {"calls": torch.tensor([[3]])})[0], acts[3])


@pytest.mark.parametrize(("settings", "wanted"), [({}, 4), ({"rule": Rule.HEUN}, 7), (GOAL | {"guidance": 2.0}, 8)])
def test_a_policy_counts_its_networks_evaluations(settings: dict[str, object], wanted: int) -> None:
    assert made(**settings).evaluations == wanted


@torch.no_grad()
def test_a_streaming_policy_alone_remembers_its_plan() -> None:
    for member, forgets in (({"obs_steps": 1}, True), ({"obs_steps": 1, **STREAM}, False)):
        policy, obs = made(**member), observed(2)
        fresh = policy.begin(CONTEXT, 2)
        _, later = policy.act(obs, fresh, rng(1))
        acts = [policy.act(obs, state, rng(2))[0] for state in (fresh, later)]
        assert torch.equal(*acts) == forgets


@torch.no_grad()
@pytest.mark.parametrize("process", [ProcessName.FLOW, ProcessName.VP])
def test_a_plan_half_denoised_stays_where_it_is_when_the_robot_moves(process: ProcessName) -> None:
    """Told from the new place on, the buffer is what the same actions and noise would have given there."""
    prediction = Prediction.FLOW if process is ProcessName.FLOW else Prediction.V
    policy = made(process=process, prediction=prediction, **RELATIVE, **STREAM)
    absolute, here, there = torch.rand(3, 4, 2, generator=rng()), torch.zeros(3, 2), torch.rand(3, 2, generator=rng(1))

    def buffer(origin: torch.Tensor) -> torch.Tensor:
        told = policy.actions.normalise(absolute - origin.unsqueeze(1))
        return perturb(policy.process, told, torch.randn(told.shape, generator=rng(2)), policy.rows[-1].expand(3, -1))

    state = policy.begin(CONTEXT, 3) | {"buffer": buffer(here), "origin": here}
    moved = policy._from_here(state, {"place": there})["buffer"]
    torch.testing.assert_close(moved, buffer(there))
    assert not torch.allclose(moved, buffer(here), atol=1e-2)


@torch.no_grad()
def test_relative_actions_follow_the_observation_within_the_bounds() -> None:
    """A network that sees nothing of the place still acts from there; without ``relative_to`` it does not."""
    low, far = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 3.0]])
    for settings, follows in ((RELATIVE, True), ({}, False)):
        policy = made(obs_keys=["goal"], obs_steps=1, **settings)
        policy.actions.centre.zero_(), policy.actions.scale.fill_(0.1)
        one, other = (policy.act(observed(1) | {"place": at}, policy.begin(CONTEXT, 1))[0] for at in (low, far))
        torch.testing.assert_close(other - one, (far - low).expand(4, 2)[None] * follows)
        assert (policy.act(observed(1) | {"place": 99 * far}, policy.begin(CONTEXT, 1))[0] <= 4).all()


def test_only_an_observation_shaped_like_an_action_can_be_its_origin() -> None:
    with pytest.raises(UserError, match="relative_to: wanted one of .*goal.*, shaped like an action, came nothing"):
        made(relative_to="nothing")


@torch.no_grad()
def test_streaming_over_one_chunk_is_the_plain_policy_to_the_bit() -> None:
    obs, seed = observed(2), 3
    one, plain, two = (made(chunk=chunk, streaming=on) for chunk, on in ((4, True), (4, False), (2, True)))
    actions = [policy.act(obs, policy.begin(CONTEXT, 2), rng(seed))[0] for policy in (one, plain, two)]
    assert torch.equal(actions[0], actions[1]) and not torch.equal(actions[0], actions[2])


@torch.no_grad()
def test_the_history_is_the_last_steps_and_begins_with_repeats() -> None:
    policy = made(obs_steps=3)
    normalise = policy.conditioner.observed.normalise
    steps = [observed(2, seed) for seed in range(4)]
    rows = [normalise(torch.cat([step["place"], step["goal"]], 1)) for step in steps]
    state = policy.observe(steps[0], policy.begin(CONTEXT, 2))
    torch.testing.assert_close(state["history"], torch.stack([rows[0]] * 3, 1))
    for step in steps[1:]:
        _, state = policy.act(step, state) if step is steps[2] else (None, policy.observe(step, state))
    torch.testing.assert_close(state["history"], torch.stack(rows[1:], 1))


def test_statistics_come_from_the_data_and_constant_dimensions_are_safe(tmp_path) -> None:
    policy = made()
    batch = windows(policy, 64)
    actions = (1 + batch.expert / 8) * torch.tensor([1.0, 0.0])
    policy.fit_statistics([dataclasses.replace(batch, expert=actions)])
    told, spread = policy.actions.normalise(actions), policy.actions
    torch.testing.assert_close(told.mean((0, 1)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(told.square().mean((0, 1)).sqrt(), torch.tensor([SIGMA_DATA, 0.0]))
    torch.testing.assert_close(
        torch.stack([spread.low, spread.high]), torch.stack([f((0, 1)) for f in (told.amin, told.amax)])
    )
    torch.testing.assert_close(spread.physical(told), actions)
    assert policy.conditioner.observed.scale[1] == 1 and policy.conditioner.observed.centre[1] == 3
    save_pretrained(policy, tmp_path / "policy", {})
    assert torch.equal(load_policy(tmp_path / "policy").actions.scale, spread.scale)


def test_new_statistics_reach_the_sampler(tmp_path) -> None:
    policy, obs = made(**BESO), observed(1)
    acts = [policy.act(obs, policy.begin(CONTEXT, 1))[0]]
    policy.load_state_dict(policy.state_dict() | {"actions.high": torch.tensor([0.01, 0.01])})
    acts.append(policy.act(obs, policy.begin(CONTEXT, 1))[0])
    assert not torch.allclose(*acts, atol=1e-3)


def test_guidance_1_is_the_condition_and_0_ignores_the_goal() -> None:
    obs, other = observed(3), observed(3) | {"goal": -observed(3)["goal"]}

    def act(guidance: float, obs: dict[str, torch.Tensor], no_goal: float | None = None) -> torch.Tensor:
        policy = made(**GOAL, guidance=guidance)
        if no_goal is not None:
            policy.conditioner.no_goal.data.fill_(no_goal)
        return policy.act(obs, policy.begin(CONTEXT, 3))[0]

    with torch.no_grad():
        torch.testing.assert_close(act(1.0, obs), act(1.0 + 1e-6, obs), atol=1e-3, rtol=0)
        assert torch.equal(act(0.0, obs), act(0.0, other)) and not torch.equal(act(1.0, obs), act(1.0, other))
        assert not torch.allclose(act(0.0, obs), act(0.0, obs, no_goal=1.0), atol=1e-4)  # the token counts


def test_a_dropped_goal_is_dropped_whole_and_trains_the_token() -> None:
    policy = made(**(GOAL | {"goal_dropout": 0.5}))
    batch = windows(policy, 400)
    rows = policy.conditioner.of_batch(batch, 0.5, rng())[:, -2:]
    dropped = (rows == policy.conditioner.no_goal).all(1)
    assert torch.equal(dropped, (rows == policy.conditioner.no_goal).any(1)) and 150 < dropped.sum() < 250
    policy.loss(batch, rng())[0].backward()
    assert policy.conditioner.no_goal.grad.abs().sum() > 0


@torch.no_grad()
def test_a_committed_prefix_is_kept_and_heeded() -> None:
    policy, obs = made(**PREFIX), observed(2)
    plan, state = policy.act(obs, policy.begin(CONTEXT, 2), rng(1))
    fixed = state | {"committed": torch.tensor([[2], [0]])}
    after, later = policy.act(obs, fixed, rng(2))
    free = policy.act(obs, state, rng(2))[0]
    torch.testing.assert_close(after[0, :2], plan[0, 2:])
    assert not torch.allclose(after[0, 2:], free[0, 2:], atol=1e-4)  # what follows heeds it
    assert torch.equal(after[1], free[1]) and later["committed"].eq(0).all()
    with pytest.raises(UserError, match="committed"):
        policy.act(obs, state | {"committed": torch.tensor([[3], [0]])})


@torch.no_grad()
def test_past_actions_are_clean_tokens_and_unknown_before_the_episode() -> None:
    policy, obs = made(**BESO), observed(2)
    action, state = policy.act(obs, policy.begin(CONTEXT, 2), rng(1))
    torch.testing.assert_close(policy.actions.physical(state["past"][:, 0]), action[:, 1])
    tokens, levels = policy._past_tokens((state["past"], state["known"]))
    torch.testing.assert_close(tokens, state["past"] / SIGMA_DATA)
    assert levels.eq(0).all() and policy._past_tokens((state["past"], ~state["known"]))[1].eq(1).all()
    batch = windows(policy, 2)
    past, known = policy._past_of(
        dataclasses.replace(batch, pad=torch.tensor([[True] + [False] * 4, [False] * 5])),
        policy.actions.normalise(batch.expert),
    )
    assert known.tolist() == [[False], [True]] and past[0].eq(0).all()
    torch.testing.assert_close(policy.actions.physical(past[1]), batch.expert[1, :1])


def test_wrong_windows_and_keys_are_refused() -> None:
    with pytest.raises(UserError, match="action_steps"):
        made().loss(fake_batch(SPEC, 2, 2, 3, rng()), rng())
    with pytest.raises(UserError, match="obs_keys"):
        dataclasses.replace(DiffusionCfg.tiny(), obs_keys=["route"]).build(SPEC)


@pytest.mark.parametrize(
    "settings",
    [
        {"chunk": 5},
        {"chunk": 3, "streaming": True},
        {"past": 2},
        {"prefix": 3},
        {"guidance": 2.0},
        {"goal_keys": ["goal"], "guidance": 2.0},
        {"rule": Rule.HEUN, "eta": 1.0},
        {"process": ProcessName.EDM},
        {"objective": Objective.SHORTCUT, "prediction": Prediction.V, "process": ProcessName.VP},
        {"objective": Objective.CONSISTENCY, "past": 1},
        {"sigma_min": 2.0},
    ],
)
def test_what_does_not_go_together_is_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        dataclasses.replace(DiffusionCfg.tiny(), **settings)


SEEING = IOSpec(
    obs={"camera": Field((24, 32, 3), "uint8", "", (0.0,), (255.0,)), "place": SPEC.obs["place"]},
    action=SPEC.action,
    rate_hz=10.0,
)


def test_images_are_seen_with_or_without_vectors_and_their_encoder_learns() -> None:
    for keys in (["camera"], ["camera", "place"]):
        torch.manual_seed(0)
        policy = dataclasses.replace(DiffusionCfg.tiny(), obs_keys=keys).build(SEEING)
        for parameter in policy.net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        batch = fake_batch(SEEING, 3, 2, 5, rng())
        policy.fit_statistics([batch])
        policy.loss(batch, rng())[0].backward()
        assert all(weight.grad.abs().sum() > 0 for weight in policy.conditioner.images.parameters())
        first, second = ({key: value[:, row] for key, value in batch.obs.items()} for row in (0, 1))
        with torch.no_grad():
            state = policy.observe(second, policy.observe(first, policy.begin(CONTEXT, 3)))
            together = policy.conditioner.of_batch(batch, 0.0, rng())
            torch.testing.assert_close(state["history"].flatten(1), together)
            blind = first | {"camera": 255 - first["camera"]}
            acts = [policy.act(obs, policy.begin(CONTEXT, 3))[0] for obs in (first, blind)]
            assert not torch.allclose(*acts, atol=1e-4)


def test_an_images_points_move_with_it() -> None:
    """A bright patch moved to the right moves the places of points that follow it to the right."""
    torch.manual_seed(0)
    encoder = ImageEncoder()
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    images[0, 8:16, 2:10], images[1, 8:16, 18:26] = 255, 255
    with torch.no_grad():
        moved = encoder(images).diff(dim=0)[0].view(2, -1)
    # A point that shuns the patch moves the other way, so the sum of squares tells the direction, not the sign.
    assert moved[0].square().sum() > 10 * moved[1].square().sum() > 0


def near_a_mode(member: dict[str, object], updates: int = 400) -> float:
    """Share of chunks near one of two modes: half of the training windows hold action 1, half 3."""
    generator = rng()
    torch.manual_seed(0)
    policy = dataclasses.replace(DiffusionCfg.tiny(), **({"width": 64, "layers": 2, "steps": 8} | member)).build(SPEC)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - update / updates)
        batch = windows(policy, 128, int(torch.randint(2**31, (), generator=generator)))
        mode = 1 + 2 * torch.randint(2, (128, 1, 1), generator=generator).float()
        loss, _ = policy.loss(dataclasses.replace(batch, expert=mode.expand(-1, 5, 2)), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        action, _ = policy.act(observed(400), policy.begin(CONTEXT, 400), generator)
    near = (action - 1).abs().minimum((action - 3).abs()).amax((1, 2)) < 0.5
    assert 0.3 < (action[:, 0, 0] > 2).float().mean() < 0.7
    return near.float().mean().item()


@pytest.mark.parametrize("member", [{}, STREAM, PREFIX])
def test_two_modes_are_learned_and_not_averaged(member: dict[str, object]) -> None:
    assert near_a_mode(member, 500) > 0.7


def test_jumping_networks_need_one_step_only() -> None:
    """One step of a plain flow gives the modes' mean."""
    assert near_a_mode({"steps": 1}) < 0.1
    assert near_a_mode(SHORTCUT) > 0.4
    assert near_a_mode(CONSISTENCY | {"steps": 1}) > 0.15
