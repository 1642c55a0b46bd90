import pytest
import torch
import torch.nn.functional as F

from slotssm.ops.convolution import causal_convolve


@pytest.mark.parametrize("length", [1, 3, 11])
@pytest.mark.parametrize("width", [1, 2, 4, 5])
def test_it_is_torchs_depthwise_convolution_of_past_and_present(width, length):
    x, past = torch.randn(2, length, 6, dtype=torch.float64), torch.randn(2, 6, width, dtype=torch.float64)
    weight, bias = torch.randn(6, width, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    y, last = causal_convolve(x, past, weight, bias)
    history = torch.cat([past, x.transpose(1, 2)], -1)
    expected = F.conv1d(history, weight[:, None], bias, groups=6)[..., 1:]
    expected = F.silu(expected)
    torch.testing.assert_close(y, expected.transpose(1, 2), rtol=1e-12, atol=1e-12)
    assert torch.equal(last, history[..., -width:])


def test_a_sequence_without_steps_leaves_the_past_alone():
    past = torch.randn(2, 6, 4)
    y, last = causal_convolve(torch.randn(2, 0, 6), past, torch.randn(6, 4), torch.randn(6))
    assert y.shape == (2, 0, 6)
    assert torch.equal(last, past)


def test_gradcheck():
    shapes = ((2, 3, 2), (2, 2, 4), (2, 4), (2,))
    tensors = tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert torch.autograd.gradcheck(causal_convolve, tensors)
