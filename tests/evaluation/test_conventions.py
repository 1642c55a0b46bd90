"""All conventions in one pass give what one evaluation for each of them gives."""

from dataclasses import replace

import numpy as np
import pytest
from truth_files import loosen, random_masks, write, write_truth

from slotssm import metrics
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import FileSource, ScoringOptions, evaluate
from slotssm.evaluation.catalog import METRICS
from slotssm.evaluation.conventions import CONVENTIONS
from slotssm.evaluation.evaluate import SEGMENTATION


@pytest.fixture
def files(tmp_path):
    """Seven videos of eight frames; one is empty, another in its first frame, in two others objects are missing."""
    masks = random_masks(7, 8)
    masks[1], masks[2, 0] = 0, 0
    masks[3][masks[3] > 1] = 0
    masks[4, :3][masks[4, :3] == 1] = 0
    truth = write_truth(tmp_path / "truth.h5", masks=masks)
    return truth, write(tmp_path / "predictions.h5", masks=random_masks(7, 8, seed=1) % 3)


def report(files, *names, **options):
    with EpisodeFile(files[0], needs_frames=False) as truth:
        return evaluate(FileSource(files[1], "test"), truth, "test", names, ScoringOptions(**options))


def test_one_pass_gives_the_numbers_of_single_evaluations(files, monkeypatch):
    counted = []
    contingency = metrics.contingency
    monkeypatch.setattr(metrics, "contingency", lambda *masks: counted.append(1) or contingency(*masks))
    found = report(files, conventions=("all",))
    assert len(counted) == 1
    names = [result.name for result in found.results]
    assert len(set(names)) == len(names)
    assert {result.metric for result in found.results} == set(SEGMENTATION)
    differing = set()
    for result in found.results:
        # a convention may set options of other metrics, which a single evaluation refuses
        stated = {name: value for name, value in CONVENTIONS[result.convention].items() if name in result.options}
        (single,) = report(files, result.metric, **stated).results
        assert replace(single, convention=result.convention, episodes=None) == replace(result, episodes=None)
        assert result.document()["convention"] == result.convention
        differing.add((result.metric, result.value))
    # the data tell conventions apart, or the test would prove nothing
    for metric in ("fg-ari", "miou", "mbo"):
        assert sum(name == metric for name, _ in differing) == sum(each.metric == metric for each in found.results)


@pytest.mark.parametrize("name", SEGMENTATION)
def test_every_convention_that_changes_a_metric_has_a_row(files, name):
    rows = report(files, name, conventions=("all",)).results
    stated = [tuple(result.options.items()) for result in rows]
    expected = set()
    for changes in CONVENTIONS.values():
        metric = "ari" if name == "fg-ari" and "include_background" in changes else name
        expected.add(tuple(ScoringOptions(**changes).chosen(*METRICS[metric].options).items()))
    assert len(stated) == len(set(stated)) == len(expected)
    assert {row[:-1] for row in stated} == expected


def test_named_conventions_in_the_order_asked_for(files):
    found = report(files, "fg-ari", "miou", conventions=("steve", "default", "steve"))
    assert [result.name for result in found.results] == [
        "fg-ari@steve",
        "fg-ari@default",
        "miou@steve",
        "miou@default",
    ]
    assert found.values().keys() == {result.name for result in found.results}


def test_the_convention_with_background_has_a_row_of_ari(files):
    found = report(files, "fg-ari", "ari", conventions=("default", "include-background"))
    assert [result.name for result in found.results] == ["fg-ari@default", "ari@include-background", "ari@default"]
    assert found.results[1].value == found.results[2].value != found.results[0].value


def test_other_metrics_keep_one_row(files):
    found = report(files, "slots-used", "ari", conventions=("default", "savi"))
    assert [result.name for result in found.results] == ["slots-used", "ari@default", "ari@savi"]


def test_ids_of_frames_allow_conventions_of_frames_only(files):
    loosen(files[0])
    found = report(files, "fg-ari", conventions=("all",))
    assert {result.convention for result in found.results} == {"per-frame", "slotformer"}
    (left,) = found.left_out
    assert left.startswith("fg-ari@default,")
    with pytest.raises(InputError, match=r"`conventions` default: ids in .* use per-frame or slotformer"):
        report(files, "fg-ari", conventions=("per-frame", "default"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conventions": ("savy",)}, "did you mean savi?"),
        ({"conventions": ("xyzzy",)}, "there are default, per-frame, "),
        ({"conventions": ("savi",), "per_frame": True}, "leave out `per_frame`"),
        ({"conventions": ("all",), "matching": "overlap"}, "leave out `matching`"),
        ({"conventions": ("all",), "skip_frames": 2}, "leave out `skip_frames`"),
    ],
)
def test_refusals(files, options, message):
    with pytest.raises(InputError) as error:
        report(files, **options)
    assert message in str(error.value)


# --- values of episodes -----------------------------------------------------------------------------------


def test_values_of_episodes_are_those_of_each_video_alone(files):
    (result,) = report(files, "fg-ari", per_frame=True).results
    told = result.document(per_episode=True)["per_episode"]
    with (
        EpisodeFile(files[0], needs_frames=False) as truth,
        EpisodeFile(files[1], needs_frames=False, needs_format=False) as predicted,
    ):
        pairs = [(truth.read("test", "masks", i), predicted.read("test", "masks", i)) for i in range(7)]
    for index, (true, pred) in enumerate(pairs):
        alone = metrics.fg_ari([true], [pred], per_frame=True)
        assert told["value"][index] == (None if alone.mean is None else pytest.approx(alone.mean, abs=1e-12))
        assert told["num_units"][index] == alone.num_units
    assert told["num_units"] == [8, 0, 7, 8, 8, 8, 8]
    weighted = np.average([v or 0 for v in told["value"]], weights=told["num_units"])
    assert result.value == pytest.approx(weighted, abs=1e-12)
    assert "per_episode" not in result.document()
