"""Named outputs: a mapping of what a task gives, and a state beside it."""

from collections.abc import Mapping

import pytest
import torch
from own_task import own_task

from slotssm.experiments.presets import preset
from slotssm.models import ModelState
from slotssm.tasks import OUTPUTS, Outputs

PRESETS = ("tiny-bcb", "tiny-oc", "tiny-balls")
SIZES = {"B": 2, "K": 3, "C": 3, "D": 16, "H": 16, "W": 16, "h": 8, "w": 8, "3": 3}
FRAMES = 6


def test_outputs_are_a_mapping_of_what_is_given():
    slots, masks = torch.zeros(1), torch.ones(2)
    outputs = Outputs(ModelState((), 4), slots=slots, attention=None, masks=masks)
    assert isinstance(outputs, Mapping)
    assert dict(outputs) == {"slots": slots, "masks": masks}
    assert outputs["masks"] is masks
    assert len(outputs) == 2
    assert list(outputs) == ["slots", "masks"]
    assert outputs.state.num_steps == 4


def test_what_is_not_given_is_not_there():
    outputs = Outputs(ModelState((), 0), slots=torch.zeros(1), attention=None)
    assert "attention" not in outputs
    assert outputs.get("attention") is None
    for name in ("attention", "masks", "state"):
        with pytest.raises(KeyError, match=name):
            outputs[name]


@torch.no_grad()
@pytest.mark.parametrize("name", PRESETS)
def test_tasks_give_what_they_announce_in_the_shapes_that_outputs_state(name):
    task = own_task(preset(name)).eval()
    frames = torch.randint(0, 256, (2, FRAMES, 16, 16, 3), dtype=torch.uint8)
    for outputs in (task.predict_episode(frames), task.predict(frames)):
        assert set(outputs) == task.outputs <= set(OUTPUTS)
        for key, value in outputs.items():
            dims = OUTPUTS[key].removeprefix("[").partition("]")[0].split(", ")
            assert value.ndim == len(dims), key
            for dim, size in zip(dims, value.shape, strict=True):
                assert dim in ("T", "T'") or size == SIZES[dim], (key, dim)
        assert all(torch.isfinite(value).all() for value in outputs.values())
