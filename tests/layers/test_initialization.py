import math

import pytest
import torch
from torch import nn

from slotssm.layers import CNNEncoder, InvertedAttention, PieceTokenizer, SlotAttention, SlotEncoder, SlotMixer
from slotssm.layers.initialization import fold_normalization, scale_weights
from slotssm.layers.slots import JoiningEncoder

MEAN, STD = torch.tensor([0.6, 0.5, 0.4]), torch.tensor([0.1, 0.2, 0.3])


def scenes(num: int, side: int = 32) -> torch.Tensor:
    """Frames [num, 1, 3, side, side] of one gray with a square of another colour somewhere."""
    frames = torch.full((num, 1, 3, side, side), 0.6)
    for frame, (y, x) in zip(frames, torch.randint(side - 8, (num, 2)).tolist(), strict=True):
        frame[..., y : y + 8, x : x + 8] = torch.rand(3, 1, 1)
    return frames


def variation(outputs: torch.Tensor) -> float:
    """By how much outputs of different scenes differ, relative to their size."""
    return float(outputs.std(0).mean() / outputs.square().mean().sqrt())


ENCODERS = {
    "cnn": lambda: CNNEncoder(32, 32, (32, 32, 32), 4, 48),
    "pieces": lambda: PieceTokenizer(32, 32, 1, 4, 48),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_slots_of_different_scenes_differ(kind):
    torch.manual_seed(0)
    encoder, reader = ENCODERS[kind](), SlotEncoder(4, 48, 1, 4, 4.0)
    whole, frames = nn.ModuleList([encoder, reader]), scenes(64)

    def found() -> tuple[float, float]:
        tokens = encoder(frames)[:, 0]
        return variation(tokens), variation(reader(None, tokens)[0])

    before = found()
    pixels = frames.movedim(2, -1).reshape(-1, 3)
    scale_weights(whole, pixels.mean(0), pixels.std(0))
    after = found()
    assert after[0] > 0.1 and after[1] > 0.02
    assert after[0] > 5 * before[0] and after[1] > 5 * before[1]


@torch.no_grad()
def test_weights_are_those_of_he_and_biases_zero():
    encoder, attention = CNNEncoder(8, 8, (256, 256), 2, 256), InvertedAttention(256)
    scale_weights(nn.ModuleList([encoder, attention]), torch.zeros(3), torch.ones(3))
    gains = {
        encoder.cnn[0]: math.sqrt(2),
        encoder.cnn[2]: math.sqrt(2),
        encoder.project: 1.0,
        encoder.mlp[1]: math.sqrt(2),
        encoder.mlp[3]: 1.0,
        attention.query: 1.0,
        attention.key_value: 1.0,
        attention.out: 1.0,
    }
    for layer, gain in gains.items():
        fan_in = layer.weight[0].numel()
        assert layer.weight.std() == pytest.approx(gain / math.sqrt(fan_in), rel=0.03)
        assert layer.bias is None or not layer.bias.any()


@torch.no_grad()
def test_each_weight_is_scaled_once_and_only_between_pixels_and_slots():
    joining, mixer = JoiningEncoder(SlotEncoder(2, 8, 1, 2, 2.0), 2, 8), SlotMixer(8, 2, 2.0)
    corrector, untouched = SlotAttention(8, 1, 2.0), nn.Linear(8, 8)
    whole = nn.ModuleList([joining, mixer, corrector, untouched])
    before = {name: value.clone() for name, value in whole.named_parameters()}
    scale_weights(whole, MEAN, STD)
    for name, value in whole.named_parameters():
        module, kind = name.rsplit(".", 1)
        is_scaled = name.startswith(("0.", "2.")) and isinstance(whole.get_submodule(module), nn.Linear)
        if not is_scaled:
            assert torch.equal(value, before[name]), name
        elif kind == "weight":
            # all of these are followed by GELUs or nothing
            torch.testing.assert_close(value, before[name] * math.sqrt(3))


@torch.no_grad()
@pytest.mark.parametrize("layer", [nn.Conv2d(3, 5, 3), nn.Linear(3 * 4, 5)], ids=["convolution", "linear map"])
def test_a_folded_normalization_is_that_of_the_pixels(layer):
    pixels = torch.rand(2, 3, 6, 6) if isinstance(layer, nn.Conv2d) else torch.rand(2, 3, 2, 2)
    normalized = (pixels - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    shape = (lambda x: x) if isinstance(layer, nn.Conv2d) else (lambda x: x.flatten(1))
    expected = layer(shape(normalized))
    fold_normalization(layer, MEAN, STD)
    torch.testing.assert_close(layer(shape(pixels)), expected, rtol=1e-4, atol=1e-5)
