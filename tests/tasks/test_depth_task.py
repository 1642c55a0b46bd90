"""Depth: the loss, its statistics, and what happens where nothing was measured."""

import math

import numpy as np
import pytest
import torch
from own_task import own_task

from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.tasks import Depth, build_task
from slotssm.tasks.depth import DepthScale

FRAMES, SIDE = 4, 16
SPACES = ("log", "inverse")


def depth_task(**task) -> Depth:
    torch.manual_seed(0)
    return own_task(override(preset("tiny-depth"), {"task": task}, "test")).eval()


def episodes(seed: int = 0, num: int = 2) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    shape = num, FRAMES, SIDE, SIDE
    depth = np.exp(rng.normal(2, 1, shape)).astype(np.float32)
    missing = rng.random(shape) < 0.2
    depth[missing] = rng.choice(np.array([0, -3, np.nan, np.inf], np.float32), missing.sum())
    frames = rng.integers(0, 256, (*shape, 3), np.uint8)
    return {"frames": torch.from_numpy(frames), "depth": torch.from_numpy(depth)}


def measured(depth: torch.Tensor) -> list[float]:
    return [value for value in depth.double().flatten().tolist() if math.isfinite(value) and value > 0]


def in_space(space: str, value: float) -> float:
    return math.log(value) if space == "log" else 1 / value


@torch.no_grad()
@pytest.mark.parametrize("space", SPACES)
def test_the_loss_is_the_squared_error_of_normalised_depth_over_measured_pixels(space):
    task, batch = depth_task(space=space), episodes()
    assert task.scale.fit(batch["depth"].numpy())
    loss, _ = task(batch)
    values = [in_space(space, depth) for depth in measured(batch["depth"])]
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    predicted = task.predict(batch["frames"])["depth"]
    pairs = zip(batch["depth"].flatten().tolist(), predicted.flatten().tolist(), strict=True)
    errors = [
        ((in_space(space, pred) - in_space(space, true)) / std) ** 2
        for true, pred in pairs
        if math.isfinite(true) and true > 0
    ]
    assert float(loss) == pytest.approx(math.fsum(errors) / len(errors), rel=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_normalised_training_depth_has_mean_0_and_variance_1(space):
    depth, scale = episodes(seed=1)["depth"], DepthScale(space)
    assert scale.fit(depth.flatten(0, 1).numpy())
    values, known = scale.normalized(depth)
    assert int(known.sum()) == len(measured(depth))
    assert float(values[known].mean()) == pytest.approx(0, abs=1e-5)
    assert float(values[known].std(correction=0)) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(scale.depth(values)[known], depth[known], rtol=1e-4, atol=0)
    assert (float(scale.nearest), float(scale.farthest)) == pytest.approx((min(measured(depth)), max(measured(depth))))


@pytest.mark.parametrize("space", SPACES)
def test_statistics_do_not_depend_on_the_division_into_maps(space):
    depth = episodes(seed=2)["depth"].numpy()
    whole, parts = DepthScale(space), DepthScale(space)
    whole.fit([depth])
    parts.fit(row for episode in depth for frame in episode for row in frame)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)


@pytest.mark.parametrize("space", SPACES)
def test_degenerate_depth(space):
    scale = DepthScale(space)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    assert not scale.fit([np.zeros((2, 3)), np.full((2, 3), np.nan)])
    assert scale.state_dict() == before
    one = np.zeros((2, 3))
    one[1, 1] = 7.0
    assert scale.fit([one])
    assert float(scale.std) == 1
    values, known = scale.normalized(torch.tensor(one))
    assert int(known.sum()) == 1
    assert float(values.abs().max()) == pytest.approx(0, abs=1e-6)
    constant = DepthScale(space)
    constant.fit([np.full((2, 3), 7.0)])
    assert {name: float(value) for name, value in constant.state_dict().items()} == {
        name: float(value) for name, value in scale.state_dict().items()
    }


@pytest.mark.parametrize("space", SPACES)
def test_predicted_depth_is_positive_and_near_the_range(space):
    scale = DepthScale(space)
    scale.fit([np.linspace(2, 30, 50)])
    found = scale.depth(torch.linspace(-1e4, 1e4, 101))
    assert float(found.min()) == pytest.approx(1)
    assert float(found.max()) == pytest.approx(60)


def test_a_batch_without_any_measured_pixel_has_no_loss_and_no_gradient():
    task, batch = depth_task(), episodes()
    batch["depth"] = torch.full_like(batch["depth"], torch.nan)
    loss, _ = task(batch)
    loss.backward()
    assert loss.detach() == 0
    gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
    assert gradients
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients)


def test_what_was_not_measured_changes_neither_loss_nor_gradients():
    task, batch = depth_task(), episodes()
    known = torch.isfinite(batch["depth"]) & (batch["depth"] > 0)
    found = []
    for missing in (0.0, -5.0, torch.nan, torch.inf):
        task.zero_grad()
        loss, _ = task(batch | {"depth": torch.where(known, batch["depth"], missing)})
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in task.parameters() if p.grad is not None)])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["cnn", "residual"])
@pytest.mark.parametrize("model", ["oc-slotssm", "savi", "savi++", "slotssm", "slot-transformer", "slot-rnn"])
def test_every_model_and_encoder_gives_the_same_frame_by_frame(model, encoder):
    fields = {"kind": model, "num_slots": 3, "slot_dim": 16, "num_heads": 2}
    changes = {"model": fields, "task": {"encoder": encoder, "encoder_channels": [8, 8]}}
    torch.manual_seed(0)
    task, frames = own_task(override(preset("tiny-depth"), changes, "test")).eval(), episodes()["frames"]
    whole, state, parts = task.predict(frames), None, []
    assert whole["depth"].shape == (2, FRAMES, SIDE, SIDE)
    assert set(whole) == task.outputs
    torch.testing.assert_close(whole["masks"].sum(2), torch.ones(2, FRAMES, SIDE, SIDE))
    assert task.can_stream
    for t in range(FRAMES):
        outputs = task.predict(frames[:, t : t + 1], state)
        state = outputs.state
        parts.append(outputs["depth"])
    torch.testing.assert_close(torch.cat(parts, 1), whole["depth"], rtol=1e-4, atol=1e-4)


def test_a_batch_is_learned_by_heart():
    task, batch = depth_task(decoder="pieces", decoder_channels=(32,)), episodes()
    rows = torch.linspace(1, 9, SIDE)[:, None]
    batch["depth"] = (rows * torch.tensor([[1.0], [2.0]])[:, :, None, None]).expand(-1, FRAMES, -1, SIDE).contiguous()
    batch["frames"][1] //= 4
    assert task.scale.fit(batch["depth"].numpy())
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        loss, _ = task(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_data_that_do_not_serve_are_refused():
    run = preset("tiny-depth")
    spec = spec_of(run.data)
    with pytest.raises(InputError, match="task 'depth' needs depth maps"):
        build_task(run, spec.replace(fields={name: field for name, field in spec.fields.items() if name != "depth"}))
    with pytest.raises(InputError, match="must have sides that are multiples of 8"):
        build_task(override(run, {"task": {"decoder_channels": [8, 8, 8]}}, "test"), spec.replace(width=20))
