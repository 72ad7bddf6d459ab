"""Blocks: parameter counts (published table, and by hand), output shapes, and initial outputs."""

import pytest
import torch
from torch import nn

from src.vae_modules import (
    DepthConvBlock,
    GatedFeedForward,
    NormedResidualBlock,
    PooledPosterior,
    ResidualBlock,
    UNet,
    decoder_fusion,
    frame_encoder,
    gaussian_predictor,
    generator,
    pose_encoder,
)

HEIGHT, WIDTH = 8, 12


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("module", "num_in", "num_out", "parameters"),
    [
        (frame_encoder(0.2), 3, 128, 193_568),
        (pose_encoder(0.2), 3, 32, 16_832),
        (gaussian_predictor(12, 0.2), 160, 24, 8_289),
        (decoder_fusion(12, 0.2), 172, 192, 617_768),
        (generator(0.2), 192, 3, 749_163),
    ],
)
def test_lab_networks_have_the_published_sizes(module: nn.Module, num_in: int, num_out: int, parameters: int) -> None:
    assert count(module) == parameters
    assert module(torch.rand(2, num_in, HEIGHT, WIDTH)).shape == (2, num_out, HEIGHT, WIDTH)


def test_a_narrower_lab_network_has_every_width_in_proportion() -> None:
    widths = {
        frame_encoder(0.2, 32): (3, 32),
        pose_encoder(0.2, 32): (3, 8),
        gaussian_predictor(12, 0.2, 32): (40, 24),
        decoder_fusion(12, 0.2, 32): (52, 48),
        generator(0.2, 32): (48, 3),
    }
    for module, (num_in, num_out) in widths.items():
        assert module(torch.rand(2, num_in, HEIGHT, WIDTH)).shape == (2, num_out, HEIGHT, WIDTH)
    first, last = frame_encoder(0.2, 32)[0], frame_encoder(0.2, 32)[-1]
    assert count(first) == (3 * 4 * 9 + 4) + (4 * 4 * 9 + 4) + (3 * 4 + 4)  # 16 / 4 channels
    assert count(last) == 16 * 32 * 9 + 32


def test_block_sizes_by_hand() -> None:
    # conv3 3->5: 3*5*9+5, conv3 5->5: 5*5*9+5, conv1 3->5: 3*5+5
    assert count(ResidualBlock(3, 5, 0.2)) == 140 + 230 + 20
    # conv1 4->4, depthwise 3x3, conv1 4->4; feed-forward 4 -> 16, 8 -> 4
    assert count(DepthConvBlock(4, 4, 0.2)) == 20 + 40 + 20 + (4 * 16 + 16) + (8 * 4 + 4)
    # with a different number of outputs: conv1 4->6 twice, feed-forward 6 -> 24, 12 -> 6
    assert count(DepthConvBlock(4, 6, 0.2)) == 20 + 40 + 30 + 30 + (6 * 24 + 24) + (12 * 6 + 6)


def test_gate_by_hand() -> None:
    block = GatedFeedForward(1, negative_slope=0.5)
    with torch.no_grad():
        block.expand.weight.copy_(torch.tensor([1.0, 2.0, -1.0, 3.0]).reshape(4, 1, 1, 1))
        block.expand.bias.zero_()
        block.project.weight.copy_(torch.tensor([1.0, 10.0]).reshape(1, 2, 1, 1))
        block.project.bias.fill_(0.25)
        out = block(torch.full((1, 1, 1, 1), 2.0))
    # values 2 and 4, gates -2 -> -1 and 6: 2 * -1 + 10 * 4 * 6 + 0.25, plus the input 2
    assert out.item() == pytest.approx(-2 + 240 + 0.25 + 2)


def test_a_slope_of_one_makes_the_block_linear() -> None:
    block = ResidualBlock(3, 4, negative_slope=1.0)
    zero = torch.zeros(1, 3, HEIGHT, WIDTH)
    one = torch.rand(1, 3, HEIGHT, WIDTH)
    two = torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        assert torch.allclose(block(one) + block(two), block(one + two) + block(zero), atol=1e-5)
        curved = ResidualBlock(3, 4, negative_slope=0.2)
        assert not torch.allclose(curved(one) + curved(two), curved(one + two) + curved(zero), atol=1e-3)


def test_normed_block_starts_as_the_identity() -> None:
    features = torch.randn(2, 8, HEIGHT, WIDTH)
    assert torch.equal(NormedResidualBlock(8, 8)(features), features)


def test_unet_keeps_the_resolution_and_ignores_the_latent_at_first() -> None:
    network = UNet(5, 8, num_levels=3, num_blocks=1, num_latents=4)
    inputs = torch.randn(2, 5, HEIGHT, WIDTH)
    out = network(inputs, torch.zeros(2, 4, 1, 1))
    assert out.shape == (2, 8, HEIGHT, WIDTH)
    assert torch.equal(out, network(inputs, torch.randn(2, 4, 1, 1)))


def test_unet_uses_the_latent_once_trained() -> None:
    network = UNet(5, 8, num_levels=2, num_blocks=1, num_latents=4)
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, nn.Linear):
                block.weight.normal_()
    inputs = torch.randn(1, 5, HEIGHT, WIDTH)
    zeros, ones = torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1)
    assert not torch.allclose(network(inputs, zeros), network(inputs, ones), atol=1e-3)
    everywhere = ones.expand(-1, -1, HEIGHT // 2, WIDTH // 2)
    assert torch.allclose(network(inputs, ones), network(inputs, everywhere), atol=1e-5)
    changed = everywhere.clone()
    changed[:, :, 0, 0] = 5
    assert not torch.allclose(network(inputs, everywhere), network(inputs, changed), atol=1e-3)


def test_posterior_depends_on_the_frame_from_the_start() -> None:
    """The modulation is zero at first. It gets a gradient only if the latents depend on the frame."""
    posterior = PooledPosterior(6, 8, 3, (1, 2))
    mean, _ = posterior(torch.rand(2, 6, HEIGHT, WIDTH)).chunk(2, dim=1)
    assert mean.std(dim=0).min() > 0


def test_the_mean_over_the_latent_grid_is_the_pooled_posterior() -> None:
    """Both are linear in the features, and the mean over equal parts of their means is the mean of all."""
    grid = PooledPosterior(6, 8, 3, (2, 4))
    pooled = PooledPosterior(6, 8, 3, (1, 1))
    nn.init.normal_(grid.head.weight)
    pooled.load_state_dict(grid.state_dict())
    inputs = torch.rand(2, 6, 16, 64)
    assert grid(inputs).shape == (2, 6, 2, 4)
    assert grid(inputs).std(dim=(2, 3)).min() > 1e-3
    assert torch.allclose(grid(inputs).mean(dim=(2, 3), keepdim=True), pooled(inputs), atol=1e-5)
