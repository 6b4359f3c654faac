"""The moving average of weights, against its closed form."""

import pytest
import torch
from torch import nn

from omnibody.training.average import EVERY, Average


def moved(largest: float, steps: int) -> tuple[float, list[float]]:
    """The average after updates to the values 1, 2, ..., and the decays used."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = Average(layer, largest)
    for step in range(steps):
        nn.init.constant_(layer.weight, step + 1.0)
        average.update(step)
    return average.values["weight"].item(), [average.decay(step) for step in range(steps)]


@pytest.mark.parametrize("largest", [0.5, 0.9995])
def test_it_is_the_weighted_sum_of_the_weights_and_close_to_that_of_all(largest: float) -> None:
    value, decays = moved(largest, 50)
    assert decays[0] == 0 and max(decays) == min(largest, 1 - 50**-0.75)  # the first weights count for nothing
    some = every = 0.0
    for step, decay in enumerate(decays):
        every = decay * every + (1 - decay) * (step + 1)
        if step % EVERY == 0:
            some = decay**EVERY * some + (1 - decay**EVERY) * (step + 1)
    assert value == pytest.approx(some, rel=1e-5) and value == pytest.approx(every, rel=0.1)
    assert value != pytest.approx(moved(0.7, 50)[0], rel=1e-2)


def test_applied_weights_are_put_back_even_after_an_error() -> None:
    layer = nn.Linear(2, 2)
    average = Average(layer, 0.9)
    before = layer.weight.detach().clone()
    nn.init.ones_(layer.weight)
    with pytest.raises(RuntimeError), average.applied():
        assert torch.equal(layer.weight, before)
        raise RuntimeError
    assert layer.weight.eq(1).all()


def test_frozen_weights_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    assert set(Average(layer, 0.9).values) == {"weight"}
