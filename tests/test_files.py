"""Files are complete or absent, and refusals name the file and the remedy."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.errors import InputError
from slotssm.files import (
    atomic,
    explained,
    make_folder,
    read_json,
    refuse_existing,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half_and_fail(path: Path, error: BaseException) -> None:
    with atomic(path) as temporary:
        temporary.write_text("half")
        raise error


# --- atomic writing ---------------------------------------------------------------------------------------


def test_a_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_the_old_content_and_no_litter(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_half_and_fail(path, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.h5"]


def test_nothing_has_the_final_name_before_the_end(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.gif") as temporary:
        temporary.write_bytes(b"half")
        assert not (tmp_path / "a.gif").exists()
        # writers choose their format by the suffix, and it must be on the same disk to be moved
        assert temporary.suffix == ".gif"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"whole")
    assert (tmp_path / "a.gif").read_bytes() == b"whole"


def test_a_write_that_the_system_refuses_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "a.txt"
    with pytest.raises(InputError, match=f"cannot write {path}: No such file or directory; .* choose another --out"):
        write_text(path, "x")


def test_a_folder_in_the_way_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*: Is a directory"):
        write_text(tmp_path / "a.txt", "x")
    assert names(tmp_path) == ["a.txt"]


def test_reasons_of_several_lines_are_cut_to_the_first(tmp_path: Path) -> None:
    # h5py puts HDF5's report where the system's own short text belongs
    for error, reason in (
        (OSError(28, "Can't write (time = now\n, errno = 28\n)"), "No space left on device"),
        (OSError("Can't close\nbecause"), "Can't close"),
    ):
        with pytest.raises(InputError) as caught, explained(tmp_path):
            raise error
        assert str(caught.value) == f"cannot write {tmp_path}: {reason}; free some space or choose another --out"


@given(content=st.binary(max_size=200))
def test_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a.bin"
    write_bytes(path, content)
    assert path.read_bytes() == content


# --- checks before work begins ----------------------------------------------------------------------------


def test_existing_files_are_refused_unless_forced(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "a", force=False)
    (tmp_path / "a").touch()
    refuse_existing(tmp_path / "a", force=True)
    with pytest.raises(InputError, match="a exists already; pass --force to overwrite it, or choose another --out"):
        refuse_existing(tmp_path / "a", force=False)


def test_folders_are_made_with_their_parents_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"cannot write into .*; choose another --out") as caught:
        make_folder(tmp_path / "a" / below)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system at hand that refuses every file")
def test_a_folder_that_takes_no_files_is_refused() -> None:
    with pytest.raises(InputError, match="cannot write into /proc/self: "):
        make_folder(Path("/proc/self"))


# --- JSON -------------------------------------------------------------------------------------------------

json_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(document=json_documents)
def test_json_documents_come_back(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, document)
    assert read_json(path) == document


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused_and_the_old_file_stays(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": value})
    assert read_json(tmp_path / "a.json") == {"loss": 1.0}
    assert names(tmp_path) == ["a.json"]


def test_a_missing_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", json.dumps({"a": 1}).encode()[:-1]])
def test_a_damaged_document_is_refused_with_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json cannot be read as JSON: ") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read as JSON: .*Is a directory"):
        read_json(tmp_path)
