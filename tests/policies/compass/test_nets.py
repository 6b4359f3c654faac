"""Properties of the building blocks."""

import pytest
import torch
from torch import nn

from omnibody.policies.compass.nets import DepthEncoder, Fusion, ImageDecoder, RouteEncoder


@pytest.mark.parametrize("count", [1, 10, 19])
def test_route_encoder_takes_any_number_of_segments_in_any_order(count: int) -> None:
    segments, net = torch.randn(3, count, 4), RouteEncoder()
    out = net(segments)
    assert out.shape == (3, RouteEncoder.width)
    torch.testing.assert_close(net(segments[:, torch.randperm(count)]), out)
    torch.testing.assert_close(net(torch.cat([segments, segments[:, :1]], 1)), out)


def test_negative_control_an_ordered_encoder_and_another_segment_are_noticed() -> None:
    segments = torch.randn(3, 10, 4)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(40, 64))
    assert not torch.allclose(flat(segments.flip(1)), flat(segments))
    net, moved = RouteEncoder(), segments.clone()
    moved[:, 4] += 1.0
    assert not torch.allclose(net(moved), net(segments))


@pytest.mark.parametrize("size", [(16, 64), (8, 32), (24, 48)])
def test_encoder_and_decoder_agree_on_image_sizes(size: tuple[int, int]) -> None:
    code = DepthEncoder(*size, channels=4, embed=12)(torch.rand(2, *size))
    depth, logits = ImageDecoder(*size, channels=4, latent=12, num_classes=6)(code)
    assert depth.shape == (2, *size) and logits.shape == (2, 6, *size)


def test_an_image_size_the_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 16, came 16 x 60"):
        DepthEncoder(16, 60, channels=4, embed=12)


def test_fusion_mixes_tokens_within_a_row_only() -> None:
    net, tokens = Fusion([5, 7], 8), [torch.randn(3, 5), torch.randn(3, 7)]
    out = net(tokens)
    torch.testing.assert_close(net([token[1:2] for token in tokens]), out[1:2])
    tokens[1] = tokens[1] + 1.0
    assert not torch.allclose(net(tokens), out)
