"""What the shared writer continues, leaves alone, overwrites and refuses; within one process."""

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
from cutting import PowerCut, cut_at, cut_short, names
from small_work import LAYOUT, Make, episode, small_work

from slotssm.data.contents import content_hash
from slotssm.data.episodes import Episode, EpisodeFile, standard_layout
from slotssm.data.sharding import (
    Contents,
    DamagedSourceError,
    LeftOut,
    Shard,
    Work,
    parts,
    shard_length,
    write_episodes,
    writing,
)
from slotssm.data.sharding.work import MakeEpisodes
from slotssm.errors import InputError, Interrupted


def test_every_episode_lies_where_its_index_says(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    assert write_episodes(small_work(), tmp_path / "d.h5", on_progress=lambda *report: reports.append(report))
    with EpisodeFile(tmp_path / "d.h5") as episodes:
        assert episodes.attrs["generator"] == "small"
        for split, count in (("train", 20), ("val", 3)):
            assert episodes.num_episodes(split) == count
            for index in range(count):
                expected = episode(0, split, index)
                for name, stored in episodes.episode(split, index).items():
                    assert np.array_equal(stored, expected[name]), (split, index, name)
    assert reports == [(done, 23) for done in range(24)]
    assert names(tmp_path) == ["d.h5"]


@pytest.mark.parametrize("size", [1, 3, 20, 100])
def test_content_does_not_depend_on_shards(tmp_path: Path, hashes: dict[int, str], size: int) -> None:
    write_episodes(small_work(size=size), tmp_path / "d.h5")
    assert content_hash(tmp_path / "d.h5") == hashes[0]


@pytest.mark.parametrize("name", ["Bälle und Würfel ★.h5", "[a-z]*?.h5", "no suffix", ".hidden", "d.h5.parts", "-x"])
def test_odd_names(tmp_path: Path, hashes: dict[int, str], name: str) -> None:
    out = tmp_path / "ein Ordner" / name
    parts_folder = cut_short(out)
    assert parts_folder.is_dir()
    assert write_episodes(small_work(), out, resume=True)
    assert content_hash(out) == hashes[0]
    assert names(out.parent) == [name]


def test_symlinked_folder_and_relative_path(
    tmp_path: Path, hashes: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    write_episodes(small_work(), Path("data/d.h5"))
    assert names(tmp_path / "disk") == ["d.h5"]
    assert content_hash(Path("data/d.h5")) == hashes[0]


def test_shards_are_bounded_in_memory() -> None:
    assert shard_length(LAYOUT, 50) == 50
    large = standard_layout(100, 256, 256, 1)
    assert shard_length(large, 50) == 2  # 26 MB each
    assert shard_length(standard_layout(1000, 512, 512, 1), 50) == 1


# --- resume and force ---------------------------------------------------------------------------------------


def test_resume_makes_only_what_is_missing_and_remembers_what_was_found(tmp_path: Path, hashes: dict[int, str]) -> None:
    left = cut_short(tmp_path / "d.h5")
    assert json.loads((left / "plan.json").read_text())["found"] == {"looked": 1}
    kept = {path.name: path.stat().st_mtime_ns for path in left.glob("*.h5")}
    assert sorted(kept) == ["train-00000000-4.h5", "train-00000004-4.h5"]
    looked: list[object] = []
    reports: list[tuple[int, int]] = []

    work = small_work()
    prepare = work.prepare
    work = replace(work, prepare=lambda found: (looked.append(found), prepare(found))[1])
    write_episodes(work, tmp_path / "d.h5", resume=True, on_progress=lambda *report: reports.append(report))
    assert looked == [{"looked": 1}]
    assert reports[0] == (8, 23)
    assert content_hash(tmp_path / "d.h5") == hashes[0]
    assert names(tmp_path) == ["d.h5"]


def test_resume_of_a_complete_output_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "d.h5"
    assert write_episodes(small_work(), out) is True
    before = out.stat().st_mtime_ns
    # as on a disk that may only be read
    monkeypatch.setattr(writing, "make_folder", None)
    assert write_episodes(small_work(), out, resume=True) is False
    assert write_episodes(small_work(), out, resume=True, force=True) is False
    assert out.stat().st_mtime_ns == before


def test_parts_of_a_complete_output_are_cleaned_up(tmp_path: Path) -> None:
    """Killed between moving the joined file into place and clearing up."""
    out = tmp_path / "d.h5"
    cut_short(out)
    write_episodes(small_work(), tmp_path / "whole.h5")
    (tmp_path / "whole.h5").rename(out)
    with pytest.raises(InputError, match="exists already"):
        write_episodes(small_work(), out)
    assert write_episodes(small_work(), out, resume=True) is False
    assert names(tmp_path) == ["d.h5"]


def test_parts_of_another_plan_outlive_a_complete_output(tmp_path: Path, hashes: dict[int, str]) -> None:
    """A forced run with another seed was interrupted: its parts are neither removed nor mixed."""
    out = tmp_path / "d.h5"
    write_episodes(small_work(Make(0)), out)
    with pytest.raises(PowerCut):
        write_episodes(small_work(Make(1)), out, force=True, on_progress=cut_at(9))
    left = names(tmp_path / "d.h5.parts")
    assert write_episodes(small_work(Make(0)), out, resume=True) is False
    assert names(tmp_path / "d.h5.parts") == left
    with pytest.raises(InputError, match=r"d\.h5 exists already and was made from other settings.*`force`"):
        write_episodes(small_work(Make(1)), out, resume=True)
    assert content_hash(out) == hashes[0]
    reports: list[tuple[int, int]] = []
    write_episodes(small_work(Make(1)), out, True, True, lambda *report: reports.append(report))
    assert reports[0] == (8, 23)
    assert content_hash(out) == hashes[1]
    assert names(tmp_path) == ["d.h5"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("other seed", "was made from other settings"),
        ("fewer", "other numbers of episodes"),
        ("text", "not an episode"),
    ],
)
def test_resume_refuses_an_output_of_another_kind(tmp_path: Path, content: str, reason: str) -> None:
    out = tmp_path / "d.h5"
    if content == "text":
        out.write_text("precious")
    else:
        work = small_work(Make(1)) if content == "other seed" else small_work(num_val=2)
        write_episodes(work, out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=f"exists already and .*{reason}.*`force` overwrites it"):
        write_episodes(small_work(), out, resume=True)
    assert out.read_bytes() == before
    assert names(tmp_path) == ["d.h5"]


def test_an_unfinished_work_is_continued_or_dropped_but_never_mixed(tmp_path: Path, hashes: dict[int, str]) -> None:
    out = tmp_path / "d.h5"
    before = names(cut_short(out))
    with pytest.raises(InputError, match="holds an unfinished job; `resume` continues it, `force` starts again"):
        write_episodes(small_work(), out)
    for force in (False, True):
        with pytest.raises(InputError, match="was started with other settings"):
            write_episodes(small_work(Make(1)), out, resume=True, force=force)
    assert names(tmp_path / "d.h5.parts") == before
    write_episodes(small_work(Make(1)), out, force=True)
    assert content_hash(out) == hashes[1]
    assert names(tmp_path) == ["d.h5"]


def test_another_version_is_another_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_short(tmp_path / "d.h5")
    monkeypatch.setattr(parts, "__version__", "99.0")
    with pytest.raises(InputError, match="another version"):
        write_episodes(small_work(), tmp_path / "d.h5", resume=True)


def test_a_damaged_plan_is_named(tmp_path: Path, hashes: dict[int, str]) -> None:
    left = cut_short(tmp_path / "d.h5")
    (left / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"d\.h5\.parts/plan\.json is damaged; start again with `force`"):
        write_episodes(small_work(), tmp_path / "d.h5", resume=True)
    write_episodes(small_work(), tmp_path / "d.h5", force=True)
    assert content_hash(tmp_path / "d.h5") == hashes[0]


def test_a_shard_of_another_plan_is_made_again(tmp_path: Path, hashes: dict[int, str]) -> None:
    """Such as a worker may leave that outlives its parent for a moment."""
    other = cut_short(tmp_path / "other.h5", seed=1) / "train-00000000-4.h5"
    left = cut_short(tmp_path / "d.h5")
    (left / other.name).write_bytes(other.read_bytes())
    write_episodes(small_work(), tmp_path / "d.h5", resume=True)
    assert content_hash(tmp_path / "d.h5") == hashes[0]


def test_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    left = cut_short(tmp_path / "d.h5")
    stale = [left / "train-00000008-4.h5.123-abc.partial", left / "joined.partial", left / ".plan.99.partial.json"]
    for path in stale:
        path.write_text("half")
    with pytest.raises(PowerCut):
        write_episodes(small_work(), tmp_path / "d.h5", resume=True, on_progress=cut_at(8))
    assert not [path for path in stale if path.exists()]
    # a folder that a kill left with nothing but the lock is no unfinished work
    (tmp_path / "e.h5.parts").mkdir()
    (tmp_path / "e.h5.parts" / "lock").touch()
    assert write_episodes(small_work(), tmp_path / "e.h5")
    assert "e.h5.parts" not in names(tmp_path)


def test_parts_that_cannot_be_removed_stay_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("train-00000004-4.h5") and not path.name.endswith("partial"):
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with caplog.at_level(logging.WARNING, "slotssm"):
        assert write_episodes(small_work(), tmp_path / "d.h5")
    assert "cannot remove" in caplog.text
    assert (tmp_path / "d.h5").exists()
    monkeypatch.undo()
    assert write_episodes(small_work(), tmp_path / "d.h5", resume=True) is False
    assert names(tmp_path) == ["d.h5"]


# --- faults and signals -------------------------------------------------------------------------------------


def test_errors_keep_their_own_reasons(tmp_path: Path) -> None:
    """Nothing but writing is called a failure to write."""
    out = tmp_path / "d.h5"
    for fault, error, reason in (
        ("exception", ValueError, "a fault of the generator's own"),
        ("reading", PermissionError, "videos/clip7.mp4"),
    ):
        with pytest.raises(error, match=reason):
            write_episodes(small_work(Make(fault=fault, at=9)), out, resume=True)
        assert "train-00000004-4.h5" in names(tmp_path / "d.h5.parts")
    assert write_episodes(small_work(), out, resume=True)


def test_a_damaged_source_leaves_nothing_and_harms_nothing(tmp_path: Path) -> None:
    out = tmp_path / "d.h5"
    broken = small_work(Make(fault="damaged", at=9))
    with pytest.raises(DamagedSourceError, match="download it again"):
        write_episodes(broken, out)
    assert names(tmp_path) == []
    out.write_text("precious")
    with pytest.raises(DamagedSourceError):
        write_episodes(broken, out, force=True)
    assert out.read_text() == "precious"
    assert names(tmp_path) == ["d.h5"]


def signal_at(number: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        if done == number:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


@pytest.mark.parametrize(("at", "kept"), [(0, 0), (1, 0), (4, 4), (6, 4), (22, 20), (23, 23)])
def test_a_stop_request_at_any_episode_is_resumable(tmp_path: Path, hashes: dict[int, str], at: int, kept: int) -> None:
    out = tmp_path / "d.h5"
    with pytest.raises(Interrupted, match=f"SIGTERM: {kept} of 23 episodes are kept; `resume` continues"):
        write_episodes(small_work(), out, on_progress=signal_at(at))
    assert not out.exists()
    reports: list[tuple[int, int]] = []
    write_episodes(small_work(), out, resume=True, on_progress=lambda *report: reports.append(report))
    assert reports[0] == (kept, 23)
    assert content_hash(out) == hashes[0]


def test_what_arrives_beside_the_lock_is_not_overwritten(tmp_path: Path) -> None:
    """A copy of somebody's, made while the shards were."""
    out = tmp_path / "d.h5"

    def on_progress(done: int, total: int) -> None:
        if done == 23:
            out.write_text("precious")

    with pytest.raises(InputError, match="exists already"):
        write_episodes(small_work(), out, on_progress=on_progress)
    assert out.read_text() == "precious"
    out.unlink()
    assert write_episodes(small_work(), out, resume=True)


@pytest.mark.parametrize("length", [252, 300])
def test_a_name_that_is_too_long(tmp_path: Path, length: int) -> None:
    """Too long with the ending of the parts, and too long by itself."""
    with pytest.raises(InputError, match=r"File name too long; choose another `out`"):
        write_episodes(small_work(), tmp_path / ("x" * length))
    assert names(tmp_path) == []


def test_preparation_is_interrupted_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """It may take minutes to look at a source, and nothing is written before."""

    def prepare(found: object) -> Contents:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still at work")

    with pytest.raises(KeyboardInterrupt):
        write_episodes(replace(small_work(), prepare=prepare), tmp_path / "d.h5")
    assert names(tmp_path) == []


def test_file_in_the_way_of_the_parts(tmp_path: Path) -> None:
    (tmp_path / "d.h5.parts").write_text("mine")
    with pytest.raises(InputError, match=r"d\.h5\.parts is in the way: it is not a folder"):
        write_episodes(small_work(), tmp_path / "d.h5")
    assert (tmp_path / "d.h5.parts").read_text() == "mine"


def test_shards_say_nothing_in_the_finished_file(tmp_path: Path) -> None:
    write_episodes(small_work(), tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5") as file:
        assert set(file.attrs) == {"format", "format_version", "generator", "seed"}


# --- episodes that are left out ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sparse:
    """Episodes of train whose index is in `without` are left out."""

    without: tuple[int, ...]

    def __call__(self, shard: Shard) -> Iterator[Episode | LeftOut]:
        for index in range(shard.first, shard.first + shard.count):
            if shard.split == "train" and index in self.without:
                yield LeftOut(f"clip{index}", "is damaged")
            else:
                yield episode(0, shard.split, index)


def sparse_work(without: tuple[int, ...], num_train: int = 20, num_val: int = 3) -> Work:
    work = small_work(num_train=num_train, num_val=num_val)

    def prepare(found: Any) -> Contents:
        contents = work.prepare(found)
        make = cast(MakeEpisodes, Sparse(without))
        return replace(contents, make=make, attrs_of=lambda left: {"left": json.dumps([each.episode for each in left])})

    return replace(work, prepare=prepare)


@pytest.mark.parametrize("without", [(0,), (3, 4, 19), (4, 5, 6, 7), tuple(range(20))])
def test_episodes_that_are_left_out_leave_no_gap(tmp_path: Path, without: tuple[int, ...]) -> None:
    write_episodes(sparse_work(without), tmp_path / "d.h5")
    kept = [index for index in range(20) if index not in without]
    with EpisodeFile(tmp_path / "d.h5") as episodes:
        assert json.loads(episodes.attrs["left"]) == [f"clip{index}" for index in without]
        assert episodes.splits == (["train", "val"] if kept else ["val"])
        for place, index in enumerate(kept):
            np.testing.assert_array_equal(episodes.read("train", "frames", place), episode(0, "train", index)["frames"])
        assert episodes.num_episodes("val") == 3
    assert names(tmp_path) == ["d.h5"]


def test_nothing_but_episodes_that_are_left_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedSourceError, match="all 3 episodes are damaged; the first: is damaged"):
        write_episodes(sparse_work((0, 1, 2), num_train=3, num_val=0), tmp_path / "d.h5")
    assert names(tmp_path) == []
