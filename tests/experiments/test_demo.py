"""The demo of trained models: what the package ships loads, and is shown videos that it has not seen."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slotssm
import slotssm_zoo
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.experiments import demo
from slotssm.experiments.demo import FRESH_SEED, NUM_FRESH, run_demo, show_pretrained
from slotssm.experiments.presets import preset

CLI = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
TABLE = (slotssm_zoo.FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_demo_has_a_checkpoint():
    assert demo.PRESET in slotssm_zoo.names()


@pytest.mark.parametrize("name", slotssm_zoo.names())
def test_every_checkpoint_loads_and_is_in_the_table(name):
    assert f"| `{name}` |" in TABLE
    model = slotssm.load(slotssm_zoo.checkpoint(name))
    assert model.config == preset(name).replace(seed=model.config.seed)
    video = np.zeros((3, *model.size, 3), np.uint8)
    outputs = model(video)
    assert (outputs["depth"].shape if "depth" in outputs else outputs["frames"].shape[:-1]) == video.shape[:-1]
    size = sum(path.stat().st_size for path in slotssm_zoo.checkpoint(name).iterdir())
    assert size < 1.5e6


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("cpu-oc-easy", {"fg-ari": 0.8, "miou": 0.1}, {"mse": 0.02}),
        ("cpu-oc-tabletop-a", {"fg-ari": 0.35, "miou": 0.35}, {"mse": 0.012}),
        ("cpu-depth", {"fg-ari": 0.2}, {"log-depth-mse": 0.05}),
    ],
)
def test_further_checkpoints_score_on_fresh_videos_as_the_table_says(name, low, high, tmp_path):
    values = show_pretrained(tmp_path, 0, name).report.values()
    assert {metric for metric, least in low.items() if values[metric] > least} == set(low), values
    assert {metric for metric, most in high.items() if values[metric] < most} == set(high), values


def test_a_trained_model_scores_on_fresh_videos_as_the_table_says(tmp_path):
    shown = show_pretrained(tmp_path, 3)
    values = shown.report.values()
    # the table's are over 200 videos; these are 20
    assert values["fg-ari"] > 0.75
    assert values["miou"] > 0.7
    with EpisodeFile(shown.data) as fresh:
        assert tuple(fresh.splits) == ("test",)
        assert fresh.num_episodes("test") == NUM_FRESH
        assert int(fresh.attrs["seed"]) == preset(demo.PRESET).data.seed + FRESH_SEED + 3
    with Image.open(shown.animation) as picture:
        assert picture.n_frames == preset(demo.PRESET).data.recipe.num_frames


def test_the_help_names_every_checkpoint():
    documented = next(line for line in CLI.splitlines() if "with --pretrained, a checkpoint" in line)
    assert all(name in documented for name in slotssm_zoo.names())


@pytest.mark.slow
def test_the_demo_keeps_its_promise(tmp_path):
    values = run_demo(tmp_path / "demo", 0).report.values()
    assert values["fg-ari"] >= 0.9
    assert values["miou"] >= 0.7


def test_an_unknown_checkpoint_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(
        InputError, match=rf"`preset` cpu-bcb: there is no checkpoint 'cpu-bcb'; there are .*{demo.PRESET}"
    ):
        show_pretrained(tmp_path, 0, "cpu-bcb")


def test_a_demo_that_has_moved_is_found_with_its_data(workplace):
    made = run_demo(workplace / "first", 0, "tiny-oc")
    (workplace / "first").rename(workplace / "moved")
    steps = []
    again = run_demo(workplace / "moved", 0, "tiny-oc", on_step=steps.append)
    assert not steps
    assert again.report.values() == made.report.values()
    assert again.animation.exists()


def test_a_preset_without_masks_is_refused(workplace):
    with pytest.raises(InputError, match="`preset` tiny-bcb has no masks to show"):
        run_demo(workplace / "demo", 0, "tiny-bcb")
    assert not (workplace / "demo").exists()
