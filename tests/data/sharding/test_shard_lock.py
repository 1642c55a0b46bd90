"""What is decided when the lock is held, and which lock that is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cutting import cut_short, names
from small_work import Make, small_work

from slotssm.data.contents import content_hash
from slotssm.data.sharding import parts, write_episodes, writing
from slotssm.errors import BusyError, InputError


def test_parts_in_use_are_refused_whatever_is_asked(tmp_path: Path) -> None:
    out = tmp_path / "d.h5"
    left = names(cut_short(out))
    with parts.hold(out):
        for how in ({}, {"resume": True}, {"force": True}, {"resume": True, "force": True}):
            with pytest.raises(BusyError, match="in use by another process"):
                write_episodes(small_work(Make(1)), out, **how)
    assert names(tmp_path / "d.h5.parts") == left


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("how", [{}, {"resume": True}, {"force": True}, {"resume": True, "force": True}])
def test_all_is_decided_again_once_the_lock_is_held(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hashes: dict[int, str],
    how: dict[str, bool],
    seed: int,
    finished: bool,
) -> None:
    """Seed 0 is written, or started, after a second starter has looked and before it has the lock."""
    out, make_folder = tmp_path / "d.h5", writing.make_folder

    def slowly(folder: Path) -> None:
        monkeypatch.undo()
        if finished:
            write_episodes(small_work(Make(0)), out)
        else:
            cut_short(out)
        make_folder(folder)

    monkeypatch.setattr(writing, "make_folder", slowly)
    resume, force = how.get("resume", False), how.get("force", False)
    reports: list[tuple[int, int]] = []
    # what is there may only be continued by its own plan; what is complete may be overwritten, by force
    refused = not (resume and seed == 0) and not (force and (finished or not resume))
    if refused:
        expected = "exists already" if finished else "unfinished|started with other settings"
        with pytest.raises(InputError, match=expected):
            write_episodes(small_work(Make(seed)), out, **how)
        assert names(tmp_path) == ["d.h5" if finished else "d.h5.parts"]
        if not finished:
            write_episodes(small_work(Make(0)), out, True, False, lambda *report: reports.append(report))
            assert reports[0] == (8, 23)
        assert content_hash(out) == hashes[0]
        return
    is_new = write_episodes(small_work(Make(seed)), out, **how)
    assert is_new == (not (finished and resume and seed == 0))
    assert content_hash(out) == hashes[seed]
    assert names(tmp_path) == ["d.h5"]


@pytest.mark.parametrize("successor", [False, True])
def test_the_lock_of_a_removed_folder_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, successor: bool
) -> None:
    """The last holder removes lock and folder after we opened the one and before we lock it; somebody may come next."""
    out, exclusive, locked = tmp_path / "d.h5", parts.exclusive, []
    next_one = parts.hold(out)

    @contextmanager
    def late(path: Path) -> Iterator[None]:
        with exclusive(path):
            if not locked:
                locked.append(path)
                path.unlink()
                path.parent.rmdir()
                if successor:
                    next_one.__enter__()
            yield

    monkeypatch.setattr(parts, "exclusive", late)
    if successor:
        with pytest.raises(BusyError), parts.hold(out):
            pass
        next_one.__exit__(None, None, None)
    else:
        with parts.hold(out), pytest.raises(BusyError), exclusive(tmp_path / "d.h5.parts" / "lock"):
            pass
    assert names(tmp_path) == []
