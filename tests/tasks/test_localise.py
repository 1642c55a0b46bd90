"""Localisation: where is the snitch, after the last frame or after every one?"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from own_task import own_task

from slotssm.data.clips import Clips
from slotssm.data.spec import DataSpec
from slotssm.documents import override
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.grid import snitch_cell
from slotssm.tasks import Localise, build_task
from slotssm.tasks.localise import snitch_cells

FRAMES, OBJECTS, SNITCH = 16, 4, "snitch"


def localise(**task) -> Localise:
    return own_task(override(preset("tiny-snitch"), {"task": task}, "test")).eval()


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def episodes(num: int = 3, seed: int = 0, place: int = 0) -> dict[str, torch.Tensor]:
    """A random batch, with the snitch as object `place`."""
    rng = np.random.default_rng(seed)
    categories = spec_of(preset("tiny-snitch").data).fields["objects/shape"].categories
    shapes = np.full((num, OBJECTS), categories.index("cone"))
    shapes[:, place] = categories.index(SNITCH)
    blocks = rng.integers(0, 256, (num, FRAMES, 3, 3, 3), np.uint8)
    return {
        "frames": torch.from_numpy(blocks.repeat(8, 2).repeat(8, 3)),
        "snitch_cell": torch.from_numpy(rng.integers(0, 36, num, np.uint8)),
        "objects/world_position": torch.from_numpy(rng.uniform(-4, 4, (num, FRAMES, OBJECTS, 3)).astype(np.float32)),
        "objects/shape": torch.from_numpy(shapes.astype(np.uint8)),
    }


@pytest.mark.parametrize("cells_per_side", [1, 3, 4, 6])
def test_cells_of_many_positions_are_those_of_each(cells_per_side):
    rng = np.random.default_rng(0)
    edges = np.linspace(-3, 3, 2 * cells_per_side + 1)
    found = np.concatenate([rng.uniform(-4, 4, (500, 2)), np.stack(np.meshgrid(edges, edges), -1).reshape(-1, 2)])
    expected = [snitch_cell(x, y, cells_per_side) for x, y in found.tolist()]
    assert snitch_cells(torch.from_numpy(found), cells_per_side).tolist() == expected


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_cell_after_the_last_frame():
    task, batch = localise(), episodes()
    loss, logged = task(batch)
    last = task.predict(batch["frames"])["logits"][:, -1]
    torch.testing.assert_close(loss, F.cross_entropy(last, batch["snitch_cell"].long()))
    hits = [int(scores.argmax()) == int(cell) for scores, cell in zip(last, batch["snitch_cell"], strict=True)]
    assert logged["accuracy"] == pytest.approx(np.mean(hits))


@torch.no_grad()
@pytest.mark.parametrize("place", [0, 2])
def test_every_frame_may_be_asked_for_the_cell_of_then(place):
    task, batch = localise(targets="every"), episodes(place=place)
    assert task.fields == ("frames", "objects/world_position", "objects/shape")
    log_shares = task.predict(batch["frames"])["logits"].log_softmax(-1)
    picked = [
        log_shares[e, t, snitch_cell(*batch["objects/world_position"][e, t, place, :2].tolist())]
        for e in range(3)
        for t in range(FRAMES)
    ]
    loss, _ = task({name: batch[name] for name in task.fields})
    torch.testing.assert_close(loss, -torch.stack(picked).mean())


@torch.no_grad()
def test_episodes_are_read_at_evenly_spaced_frames():
    task, batch = localise(num_eval_frames=5), episodes()
    frames = Clips.every(5).frames(FRAMES, 0, 0, 0)
    assert len(frames) == 5
    found = task.predict_episode(batch["frames"])
    torch.testing.assert_close(found["logits"], task.predict(batch["frames"][:, frames])["logits"])
    assert not task.can_stream
    assert localise(num_eval_frames=0).can_stream


@torch.no_grad()
@pytest.mark.parametrize("model", ["oc-slotssm", "slotssm", "single-state-ssm", "slot-transformer", "savi", "slot-rnn"])
def test_belief_over_time_is_the_same_frame_by_frame(doubles, model):
    base = preset("tiny-snitch")
    fields = {"kind": model, "slot_dim": 16, "num_heads": 2} | ({} if model == "single-state-ssm" else {"num_slots": 3})
    config = override(base, {"model": fields, "task": {"num_eval_frames": 0}}, "test")
    torch.manual_seed(0)
    task, frames = build_task(config, spec_of(config.data)).eval(), episodes()["frames"]
    whole, state, parts = task.predict(frames)["logits"], None, []
    for t in range(FRAMES):
        outputs = task.predict(frames[:, t : t + 1], state)
        state = outputs.state
        parts.append(outputs["logits"])
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_order_of_the_slots_does_not_matter():
    head, slots = localise().head, torch.randn(2, 5, 16)
    torch.testing.assert_close(head(slots[:, [3, 1, 4, 0, 2]]), head(slots), rtol=1e-4, atol=1e-5)


def test_a_batch_is_learned_by_heart():
    torch.manual_seed(0)
    task, batch = localise(), episodes()
    batch["frames"] = batch["frames"][:, :3]
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss, _ = task(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def without(spec: DataSpec, name: str) -> DataSpec:
    return spec.replace(fields={other: field for other, field in spec.fields.items() if other != name})


@pytest.mark.parametrize(
    ("task", "missing", "message"),
    [
        ({}, "snitch_cell", "needs the label snitch_cell"),
        ({"targets": "every"}, "objects/world_position", "needs objects/world_position"),
        ({"targets": "every"}, "objects/shape", "needs objects/shape"),
        ({"num_eval_frames": 17}, "", "num_eval_frames 17 exceeds the 16 frames"),
        ({"encoder_downsample": 3}, "", "not a power of two"),
    ],
)
def test_data_that_do_not_serve_are_refused(task, missing, message):
    run = override(preset("tiny-snitch"), {"task": task}, "test")
    with pytest.raises(InputError, match=message):
        build_task(run, without(spec_of(run.data), missing))


def test_questions_at_every_frame_need_a_snitch():
    run = override(preset("tiny-snitch"), {"task": {"targets": "every"}}, "test")
    spec = spec_of(run.data)
    shape = spec.fields["objects/shape"]
    others = shape.replace(categories=tuple(name for name in shape.categories if name != SNITCH))
    with pytest.raises(InputError, match="needs a snitch among the shapes"):
        build_task(run, spec.replace(fields=spec.fields | {"objects/shape": others}))
