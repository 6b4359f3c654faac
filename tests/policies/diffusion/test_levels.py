"""Noise levels: rows of samplers and draws for training."""

import pytest
import torch

from omnibody.policies.diffusion.levels import Density, LevelMixture, draw, staircase_rows, uniform_rows
from omnibody.robots.errors import UserError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("steps", "chunks", "chunk"), [(1, 2, 8), (3, 4, 2), (5, 1, 4)])
def test_the_staircase_hands_every_chunk_the_level_of_the_one_before(steps: int, chunks: int, chunk: int) -> None:
    rows = staircase_rows(steps, chunks, chunk)
    assert rows.shape == (steps + 1, chunks * chunk)
    assert rows[-1, :chunk].eq(0).all() and rows[0, -chunk:].eq(1).all()
    torch.testing.assert_close(rows[-1, chunk:], rows[0, :-chunk])
    assert (rows.diff(dim=0) < 0).all()


def test_one_chunk_of_stairs_is_uniform() -> None:
    assert torch.equal(staircase_rows(4, 1, 3), uniform_rows(4).expand(-1, 3))
    assert not torch.equal(staircase_rows(4, 3, 1), uniform_rows(4).expand(-1, 3))


def test_the_kind_of_level_is_drawn_per_sample_at_its_share() -> None:
    levels = LevelMixture({"staircase": 0.8, "constant": 0.2}, Density.UNIFORM, 6, chunks=2)(2000, rng())
    stairs = (levels[:, 0] != levels[:, -1]).float().mean().item()
    assert 0.77 < stairs < 0.83
    assert LevelMixture({"constant": 1.0}, Density.UNIFORM, 6)(200, rng()).shape == (200, 1)


def test_staircase_levels_are_those_a_streaming_sampler_visits() -> None:
    """The step between two chunks is 1 / chunks, as in every row of the sampler's stairs."""
    levels = LevelMixture({"staircase": 1.0}, Density.UNIFORM, 6, chunks=3)(500, rng())
    gaps = levels.diff(dim=1)[:, 1::2]
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 3))
    assert levels.diff(dim=1)[:, ::2].eq(0).all() and levels.amin() >= 0 and levels.amax() <= 1


def test_independent_levels_are_uncorrelated_and_monotone_ones_rise() -> None:
    free = LevelMixture({"independent": 1.0}, Density.UNIFORM, 2)(5000, rng())
    assert abs(torch.corrcoef(free.T)[0, 1].item()) < 0.05
    rising = LevelMixture({"monotone": 1.0}, Density.UNIFORM, 5)(500, rng())
    assert (rising.diff(dim=1) >= 0).all() and not (free.diff(dim=1) >= 0).all()


def test_a_prefix_is_clean_for_every_length_up_to_the_longest() -> None:
    levels = LevelMixture({"prefix": 1.0}, Density.UNIFORM, 6, prefix=3)(4000, rng())
    lengths = levels.eq(0).sum(1)
    assert (lengths.bincount(minlength=5) / 4000 - torch.tensor([0.25] * 4 + [0.0])).abs().max() < 0.03
    assert all(
        row[: int(n)].eq(0).all() and row[int(n) :].eq(row[-1]).all() for row, n in zip(levels, lengths, strict=True)
    )


@pytest.mark.parametrize("density", Density)
def test_densities_have_their_means(density: Density) -> None:
    """Beta(1, 1.5) has mean 0.4, BESO's a median of 0.82 but for the cut; the others are symmetric about 0.5."""
    levels = draw(density, (20000,), rng())
    assert 0 <= levels.amin() and levels.amax() <= 1
    mean, width = {
        Density.UNIFORM: (0.5, 12**-0.5),
        Density.LOGIT_NORMAL: (0.5, 0.208),
        Density.BETA: (0.4, 0.262),
        Density.LOG_LOGISTIC: (0.7446, 0.1708),  # by numerical integration of the cut density
    }[density]
    assert abs(levels.mean().item() - mean) < 0.01 and abs(levels.std().item() - width) < 0.01


@pytest.mark.parametrize(
    ("shares", "prefix", "word"),
    [({"wavy": 1.0}, 0, "wavy"), ({"constant": 0.0}, 0, "constant"), ({}, 0, "levels"), ({"prefix": 1.0}, 0, "prefix")],
)
def test_senseless_mixtures_are_refused(shares: dict[str, float], prefix: int, word: str) -> None:
    with pytest.raises(UserError, match=word):
        LevelMixture(shares, Density.UNIFORM, 4, prefix=prefix)
