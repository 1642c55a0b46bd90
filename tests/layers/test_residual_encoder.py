"""The residual encoder of SAVi++: its blocks against plain operations, its Transformer within a frame."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from slotssm.errors import InputError
from slotssm.layers import ResidualBlock, ResidualEncoder


def encoder(**changes) -> ResidualEncoder:
    torch.manual_seed(0)
    sizes = {"height": 12, "width": 16, "channels": (8, 12), "downsample": 4, "dim": 16}
    rest = {"num_blocks": 2, "num_layers": 2, "num_heads": 2, "mlp_ratio": 2.0}
    return ResidualEncoder(**sizes | rest | changes).eval()


def normed(x: torch.Tensor, norm: torch.nn.GroupNorm) -> torch.Tensor:
    """Group normalisation, written out."""
    groups = rearrange(x, "n (g c) h w -> n g (c h w)", g=norm.num_groups)
    groups = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    flat = rearrange(groups, "n g (c h w) -> n (g c) h w", h=x.shape[2], w=x.shape[3])
    return flat * norm.weight[:, None, None] + norm.bias[:, None, None]


@torch.no_grad()
@pytest.mark.parametrize(("before", "after", "stride"), [(8, 8, 1), (8, 8, 2), (3, 6, 1), (4, 12, 2)])
def test_a_block_adds_two_normalised_convolutions_to_its_input(before, after, stride):
    block, x = ResidualBlock(before, after, stride), torch.randn(2, before, 6, 8)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    first, norm_1, _, second, norm_2 = block.convolutions
    hidden = normed(F.conv2d(x, first.weight, stride=stride, padding=1), norm_1).clamp(min=0)
    added = normed(F.conv2d(hidden, second.weight, padding=1), norm_2)
    kept = x
    if len(list(block.shortcut.children())):
        kept = normed(F.conv2d(x, block.shortcut[0].weight, stride=stride), block.shortcut[1])
    assert (kept is x) == (before == after and stride == 1)
    torch.testing.assert_close(block(x), (added + kept).clamp(min=0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 30, 32])
def test_any_number_of_channels_can_be_normalised(channels):
    norm = ResidualBlock(3, channels).convolutions[1]
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= max(1, channels // 4)


@torch.no_grad()
def test_tokens_see_their_own_frame_and_all_of_it():
    made, frames = encoder(), torch.rand(2, 3, 3, 12, 16)
    tokens = made(frames)
    assert made.grid == (3, 4)
    assert tokens.shape == (2, 3, 12, 16)
    other = frames.clone()
    other[1, 2, :, :2, :2] = 0
    changed = (made(other) != tokens).any(-1)
    assert changed[1, 2].all()
    assert not changed[0].any()
    assert not changed[1, :2].any()


@torch.no_grad()
def test_without_layers_it_is_the_cnn_alone():
    made, frames = encoder(num_layers=0), torch.rand(1, 2, 3, 12, 16)
    torch.testing.assert_close(made(frames), made.cnn(frames), rtol=0, atol=0)


def test_the_numbers_of_blocks_and_layers_count():
    sizes = {
        key: sum(p.numel() for p in encoder(num_blocks=blocks, num_layers=layers).parameters())
        for key, (blocks, layers) in {"one": (1, 1), "blocks": (2, 1), "layers": (1, 2)}.items()
    }
    block = 2 * (9 * 8 * 8 + 2 * 8) + 2 * (9 * 12 * 12 + 2 * 12)
    layer = 2 * 2 * 16 + 4 * 16 * 16 + 16 + 2 * 16 * 32 + 32 + 16
    assert sizes["blocks"] - sizes["one"] == block
    assert sizes["layers"] - sizes["one"] == layer


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="cannot reduce a frame by a factor of 8"):
        encoder(downsample=8)
    with pytest.raises(InputError, match="frames must be floating-point"):
        encoder()(torch.rand(1, 2, 3, 16, 16))


def test_no_convolution_of_single_pixels_is_strided():
    """Their gradient writes out of bounds on a CPU for 3 channels, channels last, as frames are (torch 2.13)."""
    single = [m for m in encoder().modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)]
    assert single
    assert all(convolution.stride == (1, 1) for convolution in single)
