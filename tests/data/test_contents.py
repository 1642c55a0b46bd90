"""The content hash is of what a file says, in whatever way it says it; and it is remembered as long as it holds."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from slotssm.data import contents
from slotssm.data.contents import as_json, content_hash, describe, known_content_hash, summarize
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError

E, T = 5, 3
TEXTS = ["red", "größer", "", "x" * 50, "blue"]
ODD = {
    "nan": np.float64("nan"),
    "nans": np.array([np.nan, np.inf, -np.inf, 1.5], "float32"),
    "nothing": h5py.Empty("f4"),
    "pair": np.complex128(1 + 2j),
    "raw": np.void(b"\x00\xff\x01"),
    "record": np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
    "texts": np.array(["a", "bb"], h5py.string_dtype()),
    "bytes": np.array([b"a", b"bb"], "S2"),
    "flag": np.True_,
    "escape": "\x1b[31mred\x1b[0m",
}


def write(path: Path, storage: str = "plain", **attrs: object) -> Path:
    """The same content in several ways."""
    rng = np.random.default_rng(0)
    options = {"chunks": (2, 1, 4, 4), "compression": "gzip", "shuffle": True} if storage == "chunks" else {}
    order = ">" if storage == "big-endian" else "<"
    with h5py.File(path, "w", libver="latest" if storage == "latest" else "earliest") as file:
        file.attrs.update({"format": "slotssm-episodes", "format_version": 2} | attrs)
        if storage == "latest":  # also the order of attributes and datasets
            file.create_dataset("test/z", data=np.arange(E, dtype="int64"))
        file.create_dataset("test/masks", data=rng.integers(0, 9, (E, T, 4, 4)).astype("uint8"), **options)
        file["test/speed"] = rng.random((E, T)).astype(f"{order}f4")
        kind = "S60" if storage == "fixed text" else h5py.string_dtype()
        texts = [text.encode() for text in TEXTS] if storage == "fixed text" else TEXTS
        file.create_dataset("test/caption", data=np.array(texts, kind))
        if storage != "latest":
            file["test/z"] = np.arange(E).astype(f"{order}i8")
        dims = {"masks": ["time", "height", "width"], "speed": ["time"], "caption": [], "z": []}
        for name, axes in dims.items():
            unit = np.bytes_(b"px") if storage == "fixed text" else "px"
            file[f"test/{name}"].attrs.update({"dims": json.dumps(["episode", *axes]), "unit": unit})
    return path


@pytest.mark.parametrize("storage", ["chunks", "big-endian", "latest", "fixed text"])
def test_the_hash_does_not_depend_on_storage(tmp_path: Path, storage: str) -> None:
    plain, other = write(tmp_path / "a.h5"), write(tmp_path / "b.h5", storage)
    assert plain.read_bytes() != other.read_bytes()
    assert content_hash(plain) == content_hash(other)


@pytest.mark.parametrize("name", ODD)
def test_attributes_of_every_type_are_hashed(tmp_path: Path, name: str) -> None:
    path, plain = write(tmp_path / "d.h5", odd=ODD[name]), write(tmp_path / "plain.h5")
    first = content_hash(path)
    assert content_hash(path) == first != content_hash(plain)
    json.dumps(describe(path, with_hash=True), allow_nan=False)


def test_the_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Addresses of objects and the order of sets are not."""
    path = write(tmp_path / "d.h5", **ODD)
    code = f"from slotssm.data.contents import content_hash\nprint(content_hash({str(path)!r}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": s},
        ).stdout.strip()
        for s in ("1", "2")
    }
    assert found == {content_hash(path)}


CHANGES: dict[str, Callable[[h5py.File], object]] = {
    "text": lambda file: file["test/caption"].__setitem__(1, "grösser"),
    "text moved to its neighbour": lambda file: (
        file["test/caption"].__setitem__(0, "re"),
        file["test/caption"].__setitem__(1, "dgrößer"),
    ),
    "value": lambda file: file["test/speed"].__setitem__((4, 2), 7),
    "mask": lambda file: file["test/masks"].__setitem__((0, 0, 0, 0), 9),
    "dims": lambda file: file["test/speed"].attrs.update(dims='["episode", "object"]'),
    "unit": lambda file: file["test/speed"].attrs.update(unit="m"),
    "root": lambda file: file.attrs.update(seed=1),
    "name": lambda file: file.move("test/z", "test/zz"),
    "split": lambda file: file.move("test", "val"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_sees_every_change(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "d.h5")
    first = content_hash(path)
    with h5py.File(path, "r+") as file:
        CHANGES[change](file)
    assert content_hash(path) != first


@pytest.mark.parametrize("block_bytes", [1, 20, 50, 100, 1000])
def test_the_hash_does_not_depend_on_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Blocks of several episodes, of one, and of parts of one."""
    path = write(tmp_path / "d.h5")
    first, few = content_hash(path), content_hash(path, first=2)
    with EpisodeFile(path, needs_frames=False) as episodes:
        expected = summarize(episodes)
        monkeypatch.setattr(contents, "BLOCK_BYTES", block_bytes)
        told: list[tuple[int, int]] = []
        assert content_hash(path, on_progress=lambda done, total: told.append((done, total))) == first
        assert content_hash(path, first=2) == few
        assert [one.maximum for one in summarize(episodes)] == [one.maximum for one in expected]
        for one, other in zip(summarize(episodes), expected, strict=True):
            assert one.mean == pytest.approx(other.mean) if other.mean is not None else one.mean is None
    done = [part for part, _ in told]
    assert done == sorted(done)
    assert {total for _, total in told} == {done[-1]}


def test_statistics_are_over_few_bytes_of_large_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "d.h5")
    monkeypatch.setattr(contents, "SAMPLED_BYTES", 100)  # two episodes of masks, all of speed
    with EpisodeFile(path, needs_frames=False) as episodes, h5py.File(path) as file:
        found = {one.name: one for one in summarize(episodes)}
        assert found["masks"].mean == pytest.approx(file["test/masks"][:2].mean())
        assert found["speed"].mean == pytest.approx(file["test/speed"][...].mean())
    assert (found["caption"].dtype, found["caption"].mean) == ("text", None)
    assert found["masks"].dims == ("episode", "time", "height", "width")


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "d.h5")
    with h5py.File(path, "r+") as file:
        file["test/speed"][0] = [np.nan, np.inf, -np.inf]
        file["test/speed"][1:] = np.finfo("float32").max
    with EpisodeFile(path, needs_frames=False) as episodes:
        found = next(one for one in summarize(episodes) if one.name == "speed")
    assert (found.num_non_finite, found.minimum) == (3, float(np.finfo("float32").max))


def test_attributes_stay_raw_in_python(tmp_path: Path) -> None:
    """Whoever prints them makes them visible."""
    with EpisodeFile(write(tmp_path / "d.h5", **ODD), needs_frames=False) as episodes:
        assert episodes.attrs["escape"] == "\x1b[31mred\x1b[0m"
        assert as_json(episodes.attrs)["escape"] == "\x1b[31mred\x1b[0m"
        assert as_json(episodes.attrs) | {"format": "", "format_version": 2} == {
            "format": "",
            "format_version": 2,
            "nan": "nan",
            "nans": ["nan", "inf", "-inf", 1.5],
            "nothing": None,
            "pair": [1.0, 2.0],
            "raw": "00ff01",
            "record": [[1, 2.5]],
            "texts": ["a", "bb"],
            "bytes": ["a", "bb"],
            "flag": True,
            "escape": "\x1b[31mred\x1b[0m",
        }


# --- the hash beside the file -----------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return write(tmp_path / "data" / "d.h5")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose hash was computed."""
    found: list[Path] = []

    def counted(path: Path, **options: object) -> str:
        found.append(path)
        return content_hash(path, **options)

    monkeypatch.setattr(contents, "content_hash", counted)
    return found


def beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256.json")


def test_a_hash_is_computed_once(path: Path, computed: list[Path]) -> None:
    told: list[int] = []
    expected = content_hash(path)
    assert known_content_hash(path, on_progress=lambda done, total: told.append(done)) == expected
    assert told
    told.clear()
    content = path.read_bytes()
    os.truncate(path, 0)  # nothing of it is read
    os.truncate(path, len(content))
    stat = json.loads(beside(path).read_text())
    os.utime(path, ns=(stat["mtime_ns"], stat["mtime_ns"]))
    assert known_content_hash(path, on_progress=lambda done, total: told.append(done)) == expected
    assert (told, computed) == ([], [path])
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".d.h5.sha256.json", "d.h5"]


@pytest.mark.parametrize("way", ["written in place", "replaced", "replaced with the same time"])
def test_a_changed_file_is_hashed_again(path: Path, computed: list[Path], way: str) -> None:
    before = known_content_hash(path)
    stat = path.stat()
    if way == "written in place":
        with h5py.File(path, "r+") as file:
            file["test/speed"][0] = 9
    else:
        other = path.with_name("other.h5")
        other.write_bytes(path.read_bytes())
        with h5py.File(other, "r+") as file:
            file["test/speed"][0] = 9
        if way == "replaced with the same time":
            os.utime(other, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        os.replace(other, path)
    assert path.stat().st_size == stat.st_size
    after = known_content_hash(path)
    assert after == content_hash(path) != before
    assert known_content_hash(path) == after
    assert len(computed) == 2


def test_a_file_is_hashed_again_if_it_was_hashed_within_a_tick_of_its_clock(path: Path, computed: list[Path]) -> None:
    """On a file system that keeps whole seconds it may have changed since without another time."""
    second = path.stat().st_mtime_ns // 10**9 * 10**9
    os.utime(path, ns=(second, second))
    assert known_content_hash(path) == known_content_hash(path) == content_hash(path)
    assert len(computed) == 2
    os.utime(path, ns=(second - 10**10, second - 10**10))
    assert known_content_hash(path) == known_content_hash(path)
    assert len(computed) == 3


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"sha256": "x"}', "[" * 99_999, "\xff"], ids=["empty", *"abcde", "bytes"]
)
def test_a_damaged_record_is_not_believed(path: Path, computed: list[Path], text: str) -> None:
    expected = known_content_hash(path)
    beside(path).write_bytes(text.encode("latin1"))
    assert known_content_hash(path) == expected
    assert json.loads(beside(path).read_text())["sha256"] == expected


@pytest.mark.parametrize("field", ["version", "size", "mtime_ns", "inode", "sha256"])
def test_a_record_of_something_else_is_not_believed(path: Path, computed: list[Path], field: str) -> None:
    expected = known_content_hash(path)
    record = json.loads(beside(path).read_text())
    record[field] = "g" * 64 if field == "sha256" else record[field] + 1
    beside(path).write_text(json.dumps(record))
    assert known_content_hash(path) == expected
    assert len(computed) == 2


def unwritable(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """As for other users than root."""
    original = contents.write_json

    def write_json(place: Path, document: object) -> None:
        if place.parent in folders or any(folder in place.parents for folder in folders):
            raise InputError(f"cannot write {place}")
        original(place, document)

    monkeypatch.setattr(contents, "write_json", write_json)


def test_in_a_folder_that_cannot_be_written_the_cache_remembers(
    path: Path, tmp_path: Path, computed: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unwritable(monkeypatch, path.parent)
    assert known_content_hash(path) == known_content_hash(path) == content_hash(path)
    assert len(computed) == 1
    assert not beside(path).exists()
    assert len(list((tmp_path / "cache" / "slotssm" / "hashes").iterdir())) == 1
    assert caplog.records == []


def test_where_nothing_can_be_written_one_note_says_so(
    path: Path, tmp_path: Path, computed: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unwritable(monkeypatch, tmp_path)
    with caplog.at_level(logging.WARNING, "slotssm"):
        assert known_content_hash(path) == content_hash(path)
    (note,) = caplog.records
    assert str(path) in note.getMessage()
    assert "\n" not in note.getMessage()
    assert known_content_hash(path) == content_hash(path)
    assert len(computed) == 2


def test_reading_a_large_file_whole_is_said_and_done_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(contents, "LARGE_BYTES", path.stat().st_size - 1)
    with caplog.at_level(logging.WARNING, "slotssm"):
        for _ in range(2):
            known_content_hash(path)
    (note,) = caplog.records
    assert note.getMessage().startswith(f"{path} (0.0 GiB) is read whole once")


def test_a_file_that_changes_meanwhile_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path, **options: object) -> str:
        os.utime(path, ns=(1, 1))
        return "0" * 64

    monkeypatch.setattr(contents, "content_hash", slow)
    with pytest.raises(InputError, match=r"d\.h5 changed while it was read"):
        known_content_hash(path)
    assert not beside(path).exists()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.h5 does not exist"):
        known_content_hash(tmp_path / "no.h5")


def test_several_processes_at_once_agree(path: Path) -> None:
    code = f"from slotssm.data.contents import known_content_hash\nprint(known_content_hash({str(path)!r}))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert {process.communicate()[0].strip() for process in running} == {content_hash(path)}
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".d.h5.sha256.json", "d.h5"]
