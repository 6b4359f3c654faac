"""The networks: parts and whole agree, levels belong to tokens, and what local FiLM must keep of the global one."""

import pytest
import torch
from torch import Tensor, nn

from omnibody.policies.diffusion.denoisers import Denoiser, ResMLP, TokenTransformer
from omnibody.policies.diffusion.unet import UNet1d

DIM, TOKENS, CONDITION = 2, 10, 3


def made(kind: str, jump: bool = False, tokens: int = TOKENS) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = {
        "resmlp": lambda: ResMLP(DIM, tokens, CONDITION, 16, 2, jump),
        "transformer": lambda: TokenTransformer(DIM, tokens, CONDITION, 16, 2, 2, jump),
        "unet": lambda: UNet1d(DIM, CONDITION, 8, 3, jump),
    }[kind]()
    return net.eval()


def disturbed(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, TOKENS, DIM, generator=generator)
    return x, torch.rand(4, TOKENS, generator=generator), torch.randn(4, CONDITION, generator=generator)


KINDS = ("resmlp", "transformer", "unet")


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_network_says_0_and_hears_everything_once_disturbed(kind: str) -> None:
    x, s, condition = inputs()
    assert made(kind)(x, s, condition).eq(0).all()
    net = disturbed(made(kind))
    said = net(x, s, condition)
    assert said.shape == x.shape
    for other in ((x + 0.1, s, condition), (x, s / 2, condition), (x, s, condition + 0.1)):
        assert not torch.allclose(net(*other), said, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_shared_levels_serve_all_rows(kind: str) -> None:
    net: Denoiser = disturbed(made(kind))  # type: ignore[assignment]
    x, s, condition = inputs()
    level, code = net.level_code(s[:1]), net.condition_code(condition)
    torch.testing.assert_close(net.denoise(x, level, code), net(x, s[:1].expand(4, -1), condition))
    assert not torch.allclose(net.denoise(x, level, code)[1:], net(x, s, condition)[1:], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 3, TOKENS])
@pytest.mark.parametrize("kind", KINDS)
def test_one_level_is_the_same_level_for_every_token(kind: str, tokens: int) -> None:
    net = disturbed(made(kind, tokens=tokens))
    x, s, condition = inputs()
    x, s = x[:, :tokens], s[:, :1]
    said = net(x, s, condition)
    torch.testing.assert_close(said, net(x, s.expand(-1, tokens), condition))
    assert not torch.allclose(said, net(x, s / 2, condition), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_jumping_network_hears_its_aim(kind: str) -> None:
    net = disturbed(made(kind, jump=True))
    x, s, condition = inputs()
    assert not torch.allclose(net(x, s, condition, s), net(x, s, condition, s / 2), atol=1e-4)


@torch.no_grad()
def test_a_level_touches_the_unets_near_tokens_only() -> None:
    """Group norms see the whole sequence, so they are left out; the transformer's attention reaches everywhere."""
    net = disturbed(UNet1d(DIM, CONDITION, 8, 1))
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda h: h  # type: ignore[method-assign]
    x, s, condition = (part[:1] for part in inputs())
    x, s = x.repeat(1, 6, 1), s.repeat(1, 6)
    other = s.clone()
    other[:, 0] += 0.3
    moved = (net(x, s, condition) != net(x, other, condition)).any(-1).nonzero()[:, 1]
    assert 0 < len(moved) and moved.max() < 30


@torch.no_grad()
def test_equal_levels_make_the_unets_film_global() -> None:
    """At equal levels the code is the same at every position of every resolution; at others it is not."""
    seen: list[Tensor] = []
    net = disturbed(made("unet"))
    for module in net.modules():
        if type(module).__name__ == "_Block":
            module.film.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x, s, condition = inputs()
    net(x, s[:, :1].expand(-1, TOKENS), condition)
    assert all((code - code[..., :1]).abs().max() < 1e-5 for code in seen)
    seen.clear()
    net(x, s, condition)
    assert any((code - code[..., :1]).abs().max() > 1e-2 for code in seen)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 5, 8, 17])
def test_the_unet_takes_any_number_of_tokens(tokens: int) -> None:
    x, s = torch.randn(2, tokens, DIM), torch.rand(2, tokens)
    assert disturbed(made("unet"))(x, s, torch.randn(2, CONDITION)).shape == x.shape
