"""Score files, and their comparison."""

import json

import numpy as np
import pytest
import scipy.stats
from truth_files import random_masks, write, write_truth

from slotssm import metrics
from slotssm.data.contents import content_hash
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation import FileSource, ScoringOptions, evaluate
from slotssm.evaluation.pairing import compare, read_scores, write_scores


def masks(num: int = 12) -> np.ndarray:
    truth = random_masks(num)
    truth[2] = 0  # nothing to score
    truth[5, 0] = 0  # one frame less
    return truth


def noisy(share: float, seed: int) -> np.ndarray:
    """The true masks with so many pixels at random."""
    rng, found = np.random.default_rng(seed), masks()
    wrong = rng.random(found.shape) < share * rng.random((len(found), 1, 1, 1))
    return np.where(wrong, rng.integers(0, 4, found.shape), found).astype(np.uint8)


@pytest.fixture
def scored(tmp_path):
    """Writes a score file; gives its path."""
    truth = write_truth(tmp_path / "truth.h5", masks=masks())

    def make(name, predicted, *names, data=truth, **options):
        predictions = write(tmp_path / f"{name}.h5", masks=predicted)
        with EpisodeFile(data, needs_frames=False) as episodes:
            report = evaluate(FileSource(predictions, "test"), episodes, "test", names, ScoringOptions(**options))
        write_scores(tmp_path / f"{name}.json", report, None, str(predictions))
        return tmp_path / f"{name}.json"

    make.truth = truth
    return make


def test_a_score_file_holds_what_a_comparison_needs(scored):
    path = scored("a", noisy(0.3, 1), "fg-ari", per_frame=True)
    document = json.loads(path.read_text())
    assert (
        document.items()
        >= {
            "format": "slotssm-scores",
            "format_version": 1,
            "run": None,
            "data": str(scored.truth),
            "data_sha256": content_hash(scored.truth),
            "split": "test",
            "num_episodes": 12,
        }.items()
    )
    found = read_scores(path).results["fg-ari"]
    expected = metrics.fg_ari(masks(), noisy(0.3, 1), per_frame=True)
    values, units = expected.by_episode(12)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(found.num_units, units)
    assert np.isnan(values[2])
    assert units.tolist() == [3, 3, 0, 3, 3, 2, *[3] * 6]


def test_comparison_is_scipys_on_the_episodes(scored):
    a, b = scored("a", noisy(0.9, 1), "fg-ari", "miou"), scored("b", noisy(0.5, 2), "fg-ari", "miou")
    found = compare(a, b)
    assert [result.name for result in found.results] == ["fg-ari", "miou"]
    for result, metric in zip(found.results, (metrics.fg_ari, metrics.miou), strict=True):
        first, second = metric(masks(), noisy(0.9, 1)), metric(masks(), noisy(0.5, 2))
        theirs = scipy.stats.permutation_test(
            (first.values, second.values),
            lambda x, y: np.mean(y - x),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        test = result.test
        assert (test.num_episodes, test.permutations, result.num_unpaired) == (11, "exact", 0)
        assert test.difference == pytest.approx(second.mean - first.mean, abs=1e-12)
        assert test.p_permutation == pytest.approx(theirs.pvalue, abs=1e-12)
        assert test.p_wilcoxon == pytest.approx(scipy.stats.wilcoxon(second.values, first.values).pvalue)
        assert test.interval[0] < test.difference < test.interval[1]


def test_differences_of_frame_means_are_differences_of_the_reported_values(scored):
    a, b = (scored(name, noisy(0.6, seed), "fg-ari", per_frame=True) for name, seed in (("a", 1), ("b", 2)))
    values = [json.loads(path.read_text())["results"][0]["value"] for path in (a, b)]
    (result,) = compare(a, b).results
    assert [result.test.first, result.test.second] == pytest.approx(values, abs=1e-12)
    assert result.test.difference == pytest.approx(values[1] - values[0], abs=1e-12)


def test_conventions_are_paired_by_name(scored):
    a, b = (
        scored(name, noisy(0.6, seed), "fg-ari", conventions=("default", "savi")) for name, seed in (("a", 1), ("b", 2))
    )
    found = compare(a, b)
    assert [result.name for result in found.results] == ["fg-ari@default", "fg-ari@savi"]
    assert found.results[1].test.num_episodes == 12  # nothing to score counts as 1
    assert [result.name for result in compare(a, b, ["fg-ari@savi"]).results] == ["fg-ari@savi"]
    assert len(compare(a, b, ["fg-ari"]).results) == 2


def test_a_convention_without_a_name_is_paired_by_its_options(scored):
    named = scored("a", noisy(0.6, 1), "fg-ari", conventions=("default", "savi", "per-frame"))
    plain = scored("b", noisy(0.6, 2), "fg-ari", empty="one", skip_frames=1)
    (one,), (other,) = compare(named, plain).results, compare(plain, named).results
    assert (one.name, other.name) == ("fg-ari@savi", "fg-ari")
    assert one.convention == other.convention == "savi"
    assert one.test.difference == -other.test.difference != 0
    assert compare(named, plain).left_out.keys() == {"fg-ari@default", "fg-ari@per-frame"}
    assert compare(plain, named).left_out.keys() == {"fg-ari@default", "fg-ari@per-frame"}


def test_what_one_file_lacks_is_left_out_and_told(scored):
    a, b = scored("a", noisy(0.6, 1), "fg-ari", "miou"), scored("b", noisy(0.6, 2), "fg-ari", "mbo")
    found = compare(a, b)
    assert [result.name for result in found.results] == ["fg-ari"]
    assert found.left_out == {"miou": f"is not in {b}", "mbo": f"is not in {a}"}
    assert compare(a, b, ["fg-ari"]).left_out == {}
    with pytest.raises(InputError, match="nothing to compare: mbo is not in"):
        compare(a, b, ["mbo"])
    with pytest.raises(InputError, match="`metric` psnr is in neither file; there are fg-ari, miou, mbo"):
        compare(a, b, ["psnr"])


def test_episodes_that_one_model_could_not_be_scored_on_are_left_out(scored):
    soft = np.random.default_rng(0).dirichlet(np.ones(4), size=(12, 3, 8, 8)).transpose(0, 1, 4, 2, 3)
    broken = soft[::-1].copy()
    broken[4] *= 2
    a, b = scored("a", soft, "mask-entropy"), scored("b", broken, "mask-entropy")
    (result,) = compare(a, b).results
    assert (result.test.num_episodes, result.num_unpaired) == (11, 1)


def test_document_is_json(scored):
    a, b = scored("a", noisy(0.6, 1), "fg-ari"), scored("b", noisy(0.6, 2), "fg-ari")
    document = json.loads(json.dumps(compare(a, b).document(), allow_nan=False))
    assert document["seed"] == 0
    assert document["first"] == {"file": str(a), "scored": str(a.with_suffix(".h5"))}
    (result,) = document["results"]
    assert {"difference", "interval", "p_permutation", "permutations", "p_wilcoxon", "options"} <= result.keys()
    assert len(result["interval"]) == 2


# --- refusals ---------------------------------------------------------------------------------------------


def refused(*arguments) -> str:
    with pytest.raises(InputError) as error:
        compare(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_other_data_splits_and_conventions_are_refused(scored, tmp_path):
    a = scored("a", noisy(0.6, 1), "fg-ari")
    other = masks()
    other[0, 0, 0, 0] ^= 1
    b = scored("b", noisy(0.6, 2), "fg-ari", data=write_truth(tmp_path / "other.h5", masks=other))
    assert "they differ in data" in refused(a, b)
    assert "content hashes differ" in refused(a, b)
    c = scored("c", noisy(0.6, 2), "fg-ari", per_frame=True)
    message = refused(a, c)
    assert f"in {a} with per_frame=False and in {c} with per_frame=True" in message
    assert "two conventions" in message
    changed = tmp_path / "val.json"
    changed.write_text(json.dumps(json.loads(a.read_text()) | {"split": "val"}))
    assert "they differ in split (test and val)" in refused(a, changed)


def test_a_metric_of_two_conventions_does_not_keep_others_from_being_compared(scored):
    a = scored("a", noisy(0.6, 1), "fg-ari", "miou", empty="one")
    b = scored("b", noisy(0.6, 2), "fg-ari", "miou")
    found = compare(a, b)
    assert [result.metric for result in found.results] == ["miou"]
    assert "two conventions" in found.left_out["fg-ari"]


def test_the_same_data_under_another_name_are_the_same(scored, tmp_path):
    a = scored("a", noisy(0.6, 1), "fg-ari")
    moved = write_truth(tmp_path / "moved.h5", masks=masks())
    assert compare(a, scored("b", noisy(0.6, 2), "fg-ari", data=moved)).results[0].test.num_episodes == 11


def test_other_files_are_refused(scored, tmp_path):
    a = scored("a", noisy(0.6, 1), "fg-ari")
    assert "does not exist" in refused(a, tmp_path / "none.json")
    for name, text, said in (
        ("text", "scores", "cannot be read as JSON"),
        ("list", "[]", "is not a score file; write one with `out`"),
        ("eval", json.dumps({"results": []}), "is not a score file"),
        ("newer", json.dumps({"format": "slotssm-scores", "format_version": 9}), "format version 9"),
        ("empty", json.dumps({"format": "slotssm-scores", "format_version": 1}), "'results' is missing"),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(text)
        assert said in refused(a, path)
    document = json.loads(a.read_text())
    document["results"][0]["per_episode"]["value"].pop()
    (tmp_path / "short.json").write_text(json.dumps(document))
    assert "not one value for every episode" in refused(a, tmp_path / "short.json")
