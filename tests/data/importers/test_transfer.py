"""How an import is written: complete or absent, resumable, and the same however it was interrupted."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import h5py
import numpy as np
import pytest
from foreign_files import png, write_rnem

from slotssm.data.contents import content_hash
from slotssm.data.importers import ImportOptions, estimate, import_data
from slotssm.data.importers import transfer as module
from slotssm.data.importers.layouts import folder as folder_module
from slotssm.errors import InputError, Interrupted

OPTIONS = ImportOptions(kind="folder", splits=("test=all",))
NUM = 12


@pytest.fixture
def source(tmp_path):
    """Twelve episodes of three frames."""
    rng = np.random.default_rng(0)
    for index in range(NUM):
        clip = tmp_path / "source" / f"clip{index}"
        clip.mkdir(parents=True)
        for t in range(3):
            (clip / f"{t}.png").write_bytes(png(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)))
    return tmp_path / "source"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(module, "SHARD_EPISODES", 2)


@pytest.fixture
def reads(monkeypatch):
    """Names of the episodes that were read."""
    names = []
    read = folder_module.FolderSource.read

    def counted(self, key, survey):
        names.append(key.recording.frames[0].parent.name)
        return read(self, key, survey)

    monkeypatch.setattr(folder_module.FolderSource, "read", counted)
    return names


def interrupt_at(number):
    """Signal ourselves when so many episodes are done."""

    def on_progress(done, total):
        if done == number:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


def test_interrupted_and_resumed_reads_nothing_twice_but_the_part_that_was_cut(source, out, reads, tmp_path):
    whole = tmp_path / "whole.h5"
    import_data(source, whole, OPTIONS)
    assert len(reads) == NUM
    reads.clear()
    with pytest.raises(Interrupted, match=r"SIGTERM: 4 of 12 episodes are kept; `resume` continues"):
        import_data(source, out, OPTIONS, on_progress=interrupt_at(5))
    assert reads == [f"clip{i}" for i in range(5)]
    assert not out.exists()
    reads.clear()
    told = []
    import_data(source, out, OPTIONS, resume=True, on_progress=lambda done, total: told.append((done, total)))
    assert reads == [f"clip{i}" for i in range(4, NUM)]
    assert (told[0], told[-1]) == ((4, 12), (12, 12))
    assert content_hash(out) == content_hash(whole)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_unfinished_import_is_continued_or_dropped_but_never_mixed(source, out, tmp_path):
    with pytest.raises(Interrupted):
        import_data(source, out, OPTIONS, on_progress=interrupt_at(5))
    with pytest.raises(InputError, match="`resume` continues it, `force`"):
        import_data(source, out, OPTIONS)
    other = OPTIONS.replace(size=(8, 8))
    with pytest.raises(InputError, match="started with other settings"):
        import_data(source, out, other, resume=True)
    # another file in the source
    clip = source / "clip3" / "1.png"
    clip.write_bytes(clip.read_bytes() + b"more")
    with pytest.raises(InputError, match="another source"):
        import_data(source, out, OPTIONS, resume=True)
    import_data(source, out, other, force=True)
    with h5py.File(out) as file:
        assert file["test/frames"].shape == (NUM, 3, 8, 8, 3)
    with pytest.raises(InputError, match="exists already"):
        import_data(source, out, OPTIONS)


def test_resume_of_a_complete_import_gives_the_usual_result(source, out, reads):
    first = import_data(source, out, OPTIONS)
    before = out.stat().st_mtime_ns
    reads.clear()
    again = import_data(source, out, OPTIONS, resume=True)
    assert (first.is_new, again.is_new) == (True, False)
    for name in ("path", "num_episodes", "num_frames", "stored_bytes", "notes"):
        assert getattr(again, name) == getattr(first, name)
    assert out.stat().st_mtime_ns == before
    assert not reads
    for other in (OPTIONS.replace(size=(8, 8)), ImportOptions(kind="folder", val=2)):
        with pytest.raises(InputError, match="exists already and was made from other settings or another source"):
            import_data(source, out, other, resume=True)
    (source / "clip3" / "1.png").write_bytes((source / "clip3" / "1.png").read_bytes() + b"more")
    with pytest.raises(InputError, match="another source"):
        import_data(source, out, OPTIONS, resume=True)
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize("at", [1, 8])
def test_a_source_that_cannot_be_read_just_now_is_not_called_damaged(source, out, monkeypatch, at):
    """A network file system that fails costs nothing of what is written, and is not called a failure to write."""
    read, number = folder_module.FolderSource.read, itertools.count(1)

    def failing(self, key, survey):
        if next(number) == at:
            raise OSError(errno.EIO, "Input/output error", str(source / "clip7" / "0.png"))
        return read(self, key, survey)

    monkeypatch.setattr(folder_module.FolderSource, "read", failing)
    with pytest.raises(InputError, match=r"cannot read .*clip7/0\.png: Input/output error; `resume` continues"):
        import_data(source, out, OPTIONS)
    told = []
    import_data(source, out, OPTIONS, resume=True, on_progress=lambda done, total: told.append(done))
    assert told[0] == 2 * ((at - 1) // 2)


def test_a_resumed_import_that_meets_damage_leaves_nothing(source, out):
    with pytest.raises(Interrupted):
        import_data(source, out, OPTIONS, on_progress=interrupt_at(5))
    # the same size, so that only reading can tell
    clip = source / "clip9" / "1.png"
    clip.write_bytes(bytes(len(clip.read_bytes())))
    with pytest.raises(InputError, match=r"clip9/1\.png"):
        import_data(source, out, OPTIONS, resume=True)
    assert not list(out.parent.iterdir())


def test_a_part_that_was_cut_is_read_again(source, out, reads):
    with pytest.raises(Interrupted):
        import_data(source, out, OPTIONS, on_progress=interrupt_at(5))
    part = sorted(out.with_name(out.name + ".parts").glob("*.h5"))[0]
    part.write_bytes(part.read_bytes()[:-200])
    reads.clear()
    import_data(source, out, OPTIONS, resume=True)
    assert reads[:3] == ["clip0", "clip1", "clip4"]


CODE = """
import sys
from pathlib import Path
from slotssm.data.importers import ImportOptions, import_data, transfer

transfer.SHARD_EPISODES = 1
import_data(Path(sys.argv[1]), Path(sys.argv[2]), ImportOptions(kind="rnem"), resume=True)
"""


def test_killed_and_resumed_the_file_is_the_same(tmp_path, out):
    write_rnem(tmp_path / "balls.h5", {"training": 60, "test": 20}, frames=20, size=32)
    command = [sys.executable, "-c", CODE, str(tmp_path / "balls.h5"), str(out)]
    parts = out.with_name(out.name + ".parts")
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while process.poll() is None and len(list(parts.glob("*.h5"))) < 10 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("*.h5")}
    assert len(kept) >= 10
    # stopped once more, to see that what was kept is not written again
    with suppress(Interrupted):
        module.SHARD_EPISODES = 1
        import_data(tmp_path / "balls.h5", out, ImportOptions(kind="rnem"), True, False, interrupt_at(len(kept) + 2))
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
    import_data(tmp_path / "balls.h5", out, ImportOptions(kind="rnem"), resume=True)
    import_data(tmp_path / "balls.h5", tmp_path / "whole.h5", ImportOptions(kind="rnem"))
    assert content_hash(out) == content_hash(tmp_path / "whole.h5")


def test_estimate_reads_one_episode_and_writes_nothing(source, out, reads, tmp_path):
    expected = estimate(source, out, OPTIONS)
    assert len(reads) == 1
    assert (expected.num_episodes, expected.num_frames) == ({"test": NUM}, 3 * NUM)
    assert not out.parent.exists()
    stored = import_data(source, out, OPTIONS).stored_bytes
    assert expected.stored_bytes == pytest.approx(stored, rel=0.3)


def test_the_file_says_what_it_was_made_from(source, out):
    import_data(source, out, OPTIONS)
    with h5py.File(out) as file:
        config, versions = json.loads(file.attrs["config"]), json.loads(file.attrs["versions"])
        assert file.attrs["seed"] == 0
    assert (
        ImportOptions.model_validate({k: v for k, v in config.items() if k not in ("source", "found", "skipped")})
        == OPTIONS
    )
    assert config["source"]["num_files"] == 3 * NUM
    assert config["source"]["files"]["clip0/0.png"] == (source / "clip0" / "0.png").stat().st_size
    assert str(source) not in json.dumps(config)
    assert {"slotssm", "h5py", "pillow"} <= set(versions)


def test_a_source_of_many_files_is_named_by_a_digest(source, out):
    def provenance():
        import_data(source, out, OPTIONS, force=True)
        with h5py.File(out) as file:
            return json.loads(file.attrs["config"])["source"]

    for index in range(40):
        (source / "clip0" / f"extra{index}.txt").touch()
    few = provenance()
    assert "files" in few
    for clip in source.iterdir():
        for t in range(3, 8):
            (clip / f"{t}.png").write_bytes((clip / "0.png").read_bytes())
    many = provenance()
    assert "files" not in many
    assert many["num_files"] == 8 * NUM
    assert many["listing_sha256"] != few["listing_sha256"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kind": "rnem", "depth": True}, "`depth` is for movi, kubric and folder"),
        ({"kind": "movi", "fixed_camera": True}, "`fixed_camera` is for cater"),
        ({"kind": "folder", "size": (0, 3)}, "size"),
        ({"kind": "folder", "test": -1}, "test"),
    ],
)
def test_options_that_do_not_belong_together(options, word):
    with pytest.raises(ValueError, match=word):
        ImportOptions(**options)


def test_counts_beyond_the_source_are_refused(source, out):
    with pytest.raises(InputError, match="ask for 13 of the 12 episodes"):
        import_data(source, out, ImportOptions(kind="folder", val=6, test=7))
    with pytest.raises(InputError, match="test=all"):
        import_data(source, out, ImportOptions(kind="folder", splits=("test",)))
