"""The division of the kernels' work into tasks."""

import pytest
import torch

from slotssm.ops.cpu.channel_blocks import channel_block
from slotssm.ops.cpu.tiling import divide


@pytest.mark.parametrize("batch", [1, 7, 8, 12])
def test_blocks_of_channels_are_a_partition(batch):
    for num_channels in (*range(1, 300), 512, 1000):
        x = torch.empty(batch, 1, num_channels)
        num_tasks, block_channels = divide(x)
        blocks = [channel_block(task, block_channels, x.numpy()) for task in range(num_tasks)]
        for b in range(batch):
            own = [block for block in blocks if block.b == b]
            covered = [block.start + i for block in own for i in range(block.channels)]
            assert covered == list(range(num_channels))
            assert [block.part for block in own] == list(range(len(own)))


def test_an_empty_batch_has_no_tasks():
    assert divide(torch.empty(0, 3, 5))[0] == 0
