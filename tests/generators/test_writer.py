"""The parallel, resumable writer within one process: same content, clear refusals, nothing half-written."""

import os
import subprocess
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_sets import RECIPES, cut_short, small_config

from generators.bcb import BCBRecipe
from generators.bouncing_recipe import BouncingRecipe
from generators.catalog import make_episode
from generators.writer import default_path, estimate, generate, verify
from slotssm.config import RecipeData
from slotssm.data.contents import content_hash
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- content ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECIPES)
def test_every_episode_in_the_file_is_the_one_its_index_names(tmp_path: Path, small_shards: None, kind: str) -> None:
    config = small_config(kind, num_test=2)
    written = generate(config, tmp_path / "d.h5", workers=1)
    assert written.num_episodes == {"train": 40, "val": 7, "test": 2}
    assert written.num_frames == 49 * config.recipe.num_frames
    assert written.stored_bytes == (tmp_path / "d.h5").stat().st_size
    with EpisodeFile(written.path) as episodes:
        assert episodes.splits == ["train", "val", "test"]
        for split, count in written.num_episodes.items():
            assert episodes.num_episodes(split) == count
            for index in range(count):
                expected = make_episode(config.recipe, config.seed, split, index)
                for name, stored in episodes.episode(split, index).items():
                    assert np.array_equal(stored, expected[name].astype(stored.dtype)), (split, index, name)


def test_content_does_not_depend_on_shards(tmp_path: Path, small_shards: None, whole_hash: str) -> None:
    generate(small_config(), tmp_path / "sharded.h5", workers=1)
    assert content_hash(tmp_path / "sharded.h5") == whole_hash


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind == "snitch" else []) for kind in RECIPES]
)
def test_first_100_episodes_do_not_depend_on_how_many_follow(tmp_path: Path, small_shards: None, kind: str) -> None:
    for count in (100, 200):
        generate(small_config(kind, num_train=count), tmp_path / f"{count}.h5", workers=1)
    hundred = content_hash(tmp_path / "100.h5", first=100)
    assert hundred == content_hash(tmp_path / "100.h5")
    assert hundred == content_hash(tmp_path / "200.h5", first=100)
    assert hundred != content_hash(tmp_path / "200.h5", first=101)


@pytest.mark.parametrize("change", [{"seed": 0}, {"num_train": 41}])
def test_content_hash_tells_data_sets_apart(tmp_path: Path, whole_hash: str, change: dict[str, int]) -> None:
    generate(small_config().replace(**change), tmp_path / "other.h5", workers=1)
    assert content_hash(tmp_path / "other.h5") != whole_hash


def test_config_in_the_file_makes_the_same_file_again(tmp_path: Path) -> None:
    generate(small_config(), tmp_path / "a.h5", workers=1)
    with EpisodeFile(tmp_path / "a.h5") as episodes:
        config = RecipeData(recipe=episodes.config, seed=episodes.attrs["seed"], num_train=40, num_val=7, num_test=0)
    generate(config, tmp_path / "b.h5", workers=1)
    assert content_hash(tmp_path / "a.h5") == content_hash(tmp_path / "b.h5")


# --- interruption -----------------------------------------------------------------------------------------


def test_resume_makes_only_what_is_missing(tmp_path: Path, small_shards: None, whole_hash: str) -> None:
    out = tmp_path / "d.h5"
    parts = cut_short(small_config(), out, num_shards=3)
    assert not out.exists()
    assert sum(name.endswith(".h5") for name in names(parts)) == 3
    reports: list[tuple[int, int]] = []
    generate(small_config(), out, workers=1, resume=True, on_progress=lambda *report: reports.append(report))
    assert reports[0] == (18, 47)
    assert content_hash(out) == whole_hash
    assert names(tmp_path) == ["d.h5"]


def test_resume_may_ask_for_more_episodes(tmp_path: Path, small_shards: None, whole_hash: str) -> None:
    # 15 episodes end within a shard, which the larger data set must not take for its own
    parts = cut_short(small_config(num_train=15), tmp_path / "d.h5", num_shards=4)
    assert "train-00000012-3.h5" in names(parts)
    generate(small_config(), tmp_path / "d.h5", workers=1, resume=True)
    assert content_hash(tmp_path / "d.h5") == whole_hash


@pytest.mark.parametrize("damage", ["truncated", "empty", "other content"])
def test_damaged_shard_is_made_again(tmp_path: Path, small_shards: None, whole_hash: str, damage: str) -> None:
    parts = cut_short(small_config(), tmp_path / "d.h5", num_shards=3)
    shard = parts / "train-00000006-6.h5"
    content = shard.read_bytes()
    shard.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "other content": b"#" * 999}[damage])
    generate(small_config(), tmp_path / "d.h5", workers=1, resume=True)
    assert content_hash(tmp_path / "d.h5") == whole_hash


def test_resume_without_anything_to_continue_starts(tmp_path: Path, whole_hash: str) -> None:
    generate(small_config(), tmp_path / "d.h5", workers=1, resume=True)
    assert content_hash(tmp_path / "d.h5") == whole_hash


def test_generation_outside_the_main_thread_works(tmp_path: Path, whole_hash: str) -> None:
    thread = threading.Thread(target=generate, args=(small_config(), tmp_path / "d.h5", 1))
    thread.start()
    thread.join()
    assert content_hash(tmp_path / "d.h5") == whole_hash


def test_resume_of_a_complete_file_gives_the_usual_result(tmp_path: Path) -> None:
    out = tmp_path / "d.h5"
    first = generate(small_config(), out, workers=1)
    before = out.stat().st_mtime_ns
    again = generate(small_config(), out, resume=True)
    assert (first.is_new, again.is_new) == (True, False)
    for name in ("path", "num_episodes", "num_frames", "stored_bytes"):
        assert getattr(again, name) == getattr(first, name)
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 4}, "was made from other settings"),
        ({"num_train": 41}, "has other numbers of episodes"),
        ({"recipe": BouncingRecipe(num_frames=5, size_px=24, radii_px=(2, 3))}, "was made from other settings"),
        ({"recipe": BCBRecipe(num_frames=3, size_px=32, num_balls=2)}, "was made from other settings"),
    ],
)
def test_resume_refuses_a_complete_file_of_other_settings(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    out = tmp_path / "d.h5"
    generate(small_config(), out, workers=1)
    before = out.read_bytes()
    with pytest.raises(InputError, match=f"d.h5 exists already and {reason}"):
        generate(small_config().replace(**change), out, workers=1, resume=True)
    assert out.read_bytes() == before


def test_resume_refuses_a_file_from_elsewhere(tmp_path: Path) -> None:
    generate(small_config(), tmp_path / "d.h5", workers=1)
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["generator"] = "movi"
    with pytest.raises(InputError, match="exists already and was made from other settings or another source"):
        generate(small_config(), tmp_path / "d.h5", resume=True)


# --- refusals ---------------------------------------------------------------------------------------------


def test_existing_output_stays_unless_forced(tmp_path: Path, whole_hash: str) -> None:
    out = tmp_path / "d.h5"
    out.write_text("precious")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"d\.h5 exists already.*; `force` overwrites it"):
            generate(small_config(), out, workers=1, resume=resume)
    assert out.read_text() == "precious"
    generate(small_config(), out, workers=1, force=True)
    assert content_hash(out) == whole_hash
    assert names(tmp_path) == ["d.h5"]


def test_unfinished_parts_are_refused_without_resume(tmp_path: Path, small_shards: None, whole_hash: str) -> None:
    out = tmp_path / "d.h5"
    parts = cut_short(small_config(), out, num_shards=2)
    before = names(parts)
    with pytest.raises(InputError, match="unfinished generation; `resume` continues it, `force` starts again"):
        generate(small_config(), out, workers=1)
    assert names(parts) == before
    generate(small_config(), out, workers=1, force=True)
    assert content_hash(out) == whole_hash


@pytest.mark.parametrize("change", [{"seed": 4}, {"recipe": BouncingRecipe(num_frames=5, size_px=24, radii_px=(2, 3))}])
def test_resume_with_other_settings_is_refused(tmp_path: Path, small_shards: None, change: dict[str, object]) -> None:
    out = tmp_path / "d.h5"
    parts = cut_short(small_config(), out, num_shards=2)
    before = names(parts)
    with pytest.raises(
        InputError, match=r"d\.h5\.parts was started with other settings.* with `force` and without `resume`"
    ):
        generate(small_config().replace(**change), out, workers=1, resume=True)
    assert names(parts) == before


def test_nothing_to_generate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to generate"):
        generate(small_config(num_train=0, num_val=0), tmp_path / "d.h5")
    assert names(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_folder_as_output_is_refused_at_once(tmp_path: Path, force: bool) -> None:
    with pytest.raises(InputError, match="is a folder; choose a file for `out`"):
        generate(small_config(), tmp_path, force=force)
    assert names(tmp_path) == []


def test_file_in_place_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match=f"cannot write into {tmp_path / 'data'}: .*; choose another `out`"):
        generate(small_config(), tmp_path / "data" / "d.h5")


@pytest.mark.parametrize(("share", "fails_at"), [(0.1, "d.h5.parts/train-"), (1.8, "d.h5:")])
def test_full_disk_is_one_line_and_leaves_nothing_half_written(small_disk: Path, share: float, fails_at: str) -> None:
    """A disk too small for the shards, and one that holds them but not the joined file as well."""
    config = small_config(num_train=800, num_val=0)
    blocks = int(share * estimate(config).stored_bytes / 1024)
    subprocess.run(["mount", "-o", f"remount,size={blocks}k", small_disk], check=True)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device; free some space") as caught:
        generate(config, small_disk / "d.h5", workers=1)
    assert "\n" not in str(caught.value)
    assert f"cannot write {small_disk}/{fails_at}" in str(caught.value)
    assert names(small_disk) == ["d.h5.parts"]
    assert not [name for name in names(small_disk / "d.h5.parts") if "partial" in name]
    # with space made, the same command goes on from there
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    generate(config, small_disk / "d.h5", workers=1, resume=True)
    assert verify(small_disk / "d.h5").mismatches == []


def test_read_only_folder_is_refused_before_any_work(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(InputError, match=f"cannot write into {small_disk}: Read-only file system; choose another"):
        generate(small_config(), small_disk / "d.h5")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_forbidden_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot write into .*: Permission denied"):
        generate(small_config(), tmp_path / "d.h5")


# --- verification and estimates ---------------------------------------------------------------------------


def test_verify_finds_nothing_in_a_good_file(tmp_path: Path) -> None:
    generate(small_config(), tmp_path / "d.h5", workers=1)
    for check_all, num_checked in ((False, 16 + 7), (True, 47)):
        found = verify(tmp_path / "d.h5", check_all)
        assert (found.num_checked, found.num_episodes, found.mismatches) == (num_checked, 47, [])


@pytest.mark.parametrize(
    ("field", "where"),
    [
        ("frames", (17, 4, 5, 6, 2)),
        ("masks", (17, 0, 23, 23)),
        ("objects/position", (17, 2, 0, 1)),
        ("objects/visible", (17, 1, 2)),
        ("objects/color", (17, 2)),
    ],
)
def test_verify_names_the_episode_and_field_that_was_changed(tmp_path: Path, field: str, where: tuple) -> None:
    generate(small_config(), tmp_path / "d.h5", workers=1)
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        value = file["train"][field][where]
        file["train"][field][where] = value + 1 if value != 255 else 254
    assert verify(tmp_path / "d.h5", check_all=True).mismatches == [f"train/17: {field}"]


def test_verify_finds_a_wrong_seed_in_the_sample(tmp_path: Path) -> None:
    generate(small_config(), tmp_path / "d.h5", workers=1)
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["seed"] = 4
    assert len(verify(tmp_path / "d.h5").mismatches) > 20


def test_verify_refuses_files_from_elsewhere(tmp_path: Path) -> None:
    generate(small_config(), tmp_path / "d.h5", workers=1)
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["generator"] = "movi"
    with pytest.raises(InputError, match=r"d\.h5 was not generated by slotssm \(generator 'movi'\)"):
        verify(tmp_path / "d.h5")


@pytest.mark.parametrize("recipe", [BCBRecipe(num_frames=11), BouncingRecipe(num_frames=20)])
def test_estimate_tells_the_size_within_a_fifth(tmp_path: Path, recipe: BCBRecipe | BouncingRecipe) -> None:
    config = RecipeData(recipe=recipe, num_train=150, num_val=50, num_test=0)
    expected = estimate(config, workers=1)
    written = generate(config, tmp_path / "d.h5", workers=1)
    assert expected.num_frames == written.num_frames
    assert expected.num_episodes == written.num_episodes
    assert expected.stored_bytes == pytest.approx(written.stored_bytes, rel=0.2)
    assert 0 < expected.seconds < 60


@pytest.mark.parametrize(
    ("recipe", "preset", "path"),
    [
        (BCBRecipe(num_frames=11, patches_per_side=16), None, "data/bcb-earliest-2560.h5"),
        (BCBRecipe(rule="frequent"), None, "data/bcb-frequent-80.h5"),
        (BouncingRecipe(), None, "data/bouncing-3-5x64.h5"),
        (BouncingRecipe(min_objects=2, max_objects=2, size_px=96), None, "data/bouncing-2x96.h5"),
        (BouncingRecipe(), "white-balls", "data/white-balls.h5"),
    ],
)
def test_default_paths(recipe: BCBRecipe | BouncingRecipe, preset: str | None, path: str) -> None:
    assert default_path(recipe, preset) == Path(path)
