"""Which launches of Triton's kernels are measured, and when."""

import pytest
import torch

from slotssm.ops.triton import scan_operator, tuning


@pytest.mark.parametrize("launches", [scan_operator._forward_launches, scan_operator._backward_launches])
@pytest.mark.parametrize("num_states", [1, 3, 16, 64, 300])
@pytest.mark.parametrize("num_channels", [1, 5, 80, 4096])
def test_launches_are_few_different_and_possible(launches, num_channels, num_states):
    found = launches(num_channels, num_states)
    assert 1 <= len(found) == len(set(found)) <= 4
    channels, states = scan_operator._tile(num_channels, num_states)
    # the usual one comes first
    assert found[0] == (channels, max(1, min(4, channels * states // 64)))
    for launch in found:
        for number in launch:
            assert number.bit_count() == 1
        assert launch.num_warps <= 4
        assert launch.channels < 2 * num_channels


def test_the_memory_of_the_backward_pass_fits_every_launch():
    for num_channels, num_states in ((5, 3), (80, 16), (512, 64)):
        tile = scan_operator._tile(num_channels, num_states)[0]
        assert {launch.channels for launch in scan_operator._backward_launches(num_channels, num_states)} == {tile}


def test_classes_of_sizes_are_powers_of_two():
    assert [tuning.size_class(batch) for batch in (1, 2, 3, 4, 5, 768, 769)] == [1, 2, 4, 4, 8, 1024, 1024]


class OnCuda(torch.Tensor):
    """Numbers on the CPU that say that they are on a GPU."""

    device = torch.device("cuda")


def test_large_inputs_on_a_gpu_are_measured_unless_results_must_be_repeatable(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    large, small = torch.zeros(tuning.LEAST_NUMEL, 1, 1), torch.zeros(2, 2, 2)
    assert tuning.is_worthwhile(large.as_subclass(OnCuda))
    assert not tuning.is_worthwhile(small.as_subclass(OnCuda))
    assert not tuning.is_worthwhile(large)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not tuning.is_worthwhile(large.as_subclass(OnCuda))
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not tuning.is_worthwhile(large.as_subclass(OnCuda))
