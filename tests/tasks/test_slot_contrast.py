import math

import numpy as np
import pytest
import torch

from slotssm.tasks.reconstruct import slot_contrast


def by_loops(slots: np.ndarray, temperature: float) -> float:
    """Every slot of every frame looks for itself among all slots of the next frames of the batch."""
    videos, frames, num_slots, _ = slots.shape
    losses = []
    for video in range(videos):
        for frame in range(frames - 1):
            for slot in range(num_slots):
                own = slots[video, frame, slot]
                scores = {
                    (other, candidate): own
                    @ slots[other, frame + 1, candidate]
                    / (np.linalg.norm(own) * np.linalg.norm(slots[other, frame + 1, candidate]) * temperature)
                    for other in range(videos)
                    for candidate in range(num_slots)
                }
                total = sum(math.exp(score) for score in scores.values())
                losses.append(math.log(total) - scores[video, slot])
    return float(np.mean(losses))


@pytest.mark.parametrize("shape", [(3, 4, 2, 5), (1, 2, 3, 4), (2, 3, 1, 6)])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrast_equals_loops_over_slots(shape, temperature):
    slots = torch.randn(shape, dtype=torch.float64)
    assert slot_contrast(slots, temperature).item() == pytest.approx(by_loops(slots.numpy(), temperature))


def test_slots_that_keep_their_place_and_differ_cost_nothing():
    kept = torch.eye(6).reshape(2, 1, 3, 6).expand(2, 4, 3, 6)
    assert slot_contrast(kept, 0.05) < 1e-6
    swapped = kept.clone()
    swapped[:, 2] = swapped[:, 2].flip(1)
    assert slot_contrast(swapped, 0.05) > 5
    # equal slots cannot be told apart: the entropy of a guess among six
    assert slot_contrast(torch.ones(2, 4, 3, 6), 0.05).item() == pytest.approx(math.log(6))


def test_neither_the_order_of_slots_nor_their_lengths_matter():
    slots = torch.randn(2, 3, 4, 5)
    loss = slot_contrast(slots, 0.1)
    torch.testing.assert_close(slot_contrast(slots[:, :, [2, 0, 3, 1]], 0.1), loss)
    torch.testing.assert_close(slot_contrast(slots * torch.rand(2, 3, 4, 1).add(0.5), 0.1), loss)
