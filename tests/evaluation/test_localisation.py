"""Localisation is scored by hand: hits, distances, groups and baselines."""

import numpy as np
import pytest
from truth_files import score, write, write_truth

from slotssm.errors import InputError
from slotssm.grid import ENDINGS, snitch_cell

NUM, FRAMES, CELLS = 40, 150, 36
RNG_SEED = 3


@pytest.fixture
def answers(tmp_path):
    """Files of truth and logits, and both as arrays."""
    rng = np.random.default_rng(RNG_SEED)
    position = rng.uniform(-3, 3, (NUM, FRAMES, 2, 3)).astype(np.float32)
    hidden = rng.choice([0, 1, 29, 30, 59, 60, 119, 120, 149], NUM)
    visible = np.ones((NUM, FRAMES, 2), np.uint16)
    for episode, count in enumerate(hidden):
        visible[episode, FRAMES - count :, 0] = 0
    arrays = {
        "snitch_cell": np.array([snitch_cell(*place[-1, 0, :2].tolist()) for place in position], np.uint8),
        "snitch_ending": rng.integers(0, len(ENDINGS), NUM).astype(np.uint8),
        "hidden_frames": hidden.astype(np.uint16),
        "objects/world_position": position,
        "objects/visible": visible,
    }
    logits = rng.normal(size=(NUM, 4, CELLS)).astype(np.float32)
    right = rng.random(NUM) < 0.5
    logits[right, -1, arrays["snitch_cell"][right]] = 9
    frames = np.zeros((NUM, FRAMES, 2, 2, 3), np.uint8)
    truth = write_truth(tmp_path / "truth.h5", frames=frames, **arrays)
    return truth, write(tmp_path / "p.h5", logits=logits), arrays, logits


def last_seen(arrays) -> np.ndarray:
    """Whether the snitch is where it was last visible, episode by episode."""
    found = []
    for episode in range(NUM):
        t = max(t for t in range(FRAMES) if arrays["objects/visible"][episode, t, 0])
        x, y = arrays["objects/world_position"][episode, t, 0, :2].tolist()
        found.append(snitch_cell(x, y) == arrays["snitch_cell"][episode])
    return np.array(found)


@pytest.mark.parametrize("batch", [7, 64])
def test_scores_are_those_of_the_cell_after_the_last_frame(answers, batch):
    truth, predictions, arrays, logits = answers
    results = score(truth, predictions, batch=batch)
    assert set(results) == {"top-1", "top-5", "cell-distance", "last-seen"}
    cells = arrays["snitch_cell"].astype(int)
    order = [sorted(range(CELLS), key=lambda c, row=row: -row[c]) for row in logits[:, -1]]
    first = np.array([cell == ranked[0] for cell, ranked in zip(cells, order, strict=True)])
    assert results["top-1"].value == pytest.approx(first.mean())
    among = [cell in ranked[:5] for cell, ranked in zip(cells, order, strict=True)]
    assert results["top-5"].value == pytest.approx(np.mean(among))
    steps = [abs(c % 6 - r[0] % 6) + abs(c // 6 - r[0] // 6) for c, r in zip(cells, order, strict=True)]
    assert results["cell-distance"].value == pytest.approx(np.mean(steps))
    assert results["last-seen"].value == pytest.approx(last_seen(arrays).mean())

    details = results["top-1"].details
    assert details["majority_class"] == np.bincount(cells).max() / NUM
    assert details["last_seen"] == pytest.approx(last_seen(arrays).mean())
    for code, name in enumerate(ENDINGS):
        own = arrays["snitch_ending"] == code
        assert details["by_ending"][name] == {
            "num_episodes": own.sum(),
            "accuracy": pytest.approx(first[own].mean()),
            "last_seen": pytest.approx(last_seen(arrays)[own].mean()),
        }
    bounds = {"0": (0, 0), "1 to 29": (1, 29), "30 to 59": (30, 59), "60 to 119": (60, 119), "120 or more": (120, 999)}
    assert list(details["by_hidden_frames"]) == list(bounds)
    for name, (low, high) in bounds.items():
        own = (arrays["hidden_frames"] >= low) & (arrays["hidden_frames"] <= high)
        assert details["by_hidden_frames"][name]["num_episodes"] == own.sum()
        assert details["by_hidden_frames"][name]["accuracy"] == pytest.approx(first[own].mean())


def gap(cell: int, other: int) -> int:
    """L1 distance of two cells."""
    return abs(cell % 6 - other % 6) + abs(cell // 6 - other // 6)


def test_every_score_has_its_baselines_beside_it(answers):
    truth, predictions, arrays, _ = answers
    results, cells = score(truth, predictions), arrays["snitch_cell"].tolist()
    counts = sorted(((cells.count(cell), -cell) for cell in set(cells)), reverse=True)
    assert results["top-5"].details == {"majority_class": pytest.approx(sum(n for n, _ in counts[:5]) / NUM)}
    most_frequent = -counts[0][1]
    seen = []
    for episode in range(NUM):
        t = max(t for t in range(FRAMES) if arrays["objects/visible"][episode, t, 0])
        seen.append(snitch_cell(*arrays["objects/world_position"][episode, t, 0, :2].tolist()))
    assert results["cell-distance"].details == {
        "majority_class": pytest.approx(np.mean([gap(most_frequent, cell) for cell in cells])),
        "last_seen": pytest.approx(np.mean([gap(last, cell) for last, cell in zip(seen, cells, strict=True)])),
    }


def test_beliefs_of_every_frame_are_scored_by_the_cell_of_then(answers, tmp_path):
    truth, _, arrays, _ = answers
    rng = np.random.default_rng(RNG_SEED)
    paths = arrays["objects/world_position"][:, :, 0, :2].tolist()
    cells = np.array([[snitch_cell(x, y) for x, y in path] for path in paths])
    logits = rng.normal(size=(NUM, FRAMES, CELLS)).astype(np.float32)
    # right where it is seen, most often, and at the end of the video never
    right = (arrays["objects/visible"][:, :, 0] > 0) & (rng.random(cells.shape) < 0.8)
    np.put_along_axis(logits, cells[..., None], np.where(right, 9, -9)[..., None], 2)
    details = score(truth, write(tmp_path / "all.h5", logits=logits))["top-1"].details
    assert details["per_frame"] == pytest.approx(right.mean(axis=0).tolist())
    seen = arrays["objects/visible"][:, :, 0] > 0
    assert details["while_seen"] == pytest.approx(right[seen].mean())
    assert details["while_hidden"] == 0


def test_labels_alone_give_scores_without_what_happened(answers, tmp_path):
    _, predictions, arrays, logits = answers
    frames = np.zeros((NUM, 3, 2, 2, 3), np.uint8)
    truth = write_truth(tmp_path / "labels.h5", frames=frames, snitch_cell=arrays["snitch_cell"])
    results = score(truth, predictions)
    assert set(results) == {"top-1", "top-5", "cell-distance"}
    assert set(results["top-1"].details) == {"majority_class"}
    assert results["top-1"].value == score(truth, write(tmp_path / "last.h5", logits=logits[:, -1]))["top-1"].value


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((NUM, 4), np.float32), "a class for each cell"),
        (np.zeros((NUM, 2, 3, CELLS), np.float32), r"must be numbers \[E, C\] or \[E, T, C\]"),
        (np.full((NUM, CELLS), np.nan, np.float32), "not numbers"),
    ],
)
def test_logits_that_are_no_answers_are_refused(answers, tmp_path, logits, message):
    with pytest.raises(InputError, match=message):
        score(answers[0], write(tmp_path / "bad.h5", logits=logits), "top-1")
