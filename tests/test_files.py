"""Files are complete or absent, and refusals name the file and the remedy."""

import errno
import fcntl
import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.errors import BusyError, InputError
from slotssm.files import (
    atomic,
    atomic_folder,
    exclusive,
    explained,
    make_folder,
    read_json,
    refuse_existing,
    restore_moved_aside,
    sync,
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
    with pytest.raises(InputError, match=f"cannot write {path}: No such file or directory; choose another `out`"):
        write_text(path, "x")


def test_a_folder_in_the_way_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*: Is a directory"):
        write_text(tmp_path / "a.txt", "x")
    assert names(tmp_path) == ["a.txt"]


def test_reasons_of_several_lines_are_cut_to_the_first(tmp_path: Path) -> None:
    # h5py puts HDF5's report where the system's own short text belongs
    full = "No space left on device; free some space or choose another `out`"
    for error, told in (
        (OSError(28, "Can't write (time = now\n, errno = 28\n)"), full),
        (OSError("Can't close\nbecause"), "Can't close; choose another `out`"),
        (
            OSError("I/O error: No space left on device (os error 28)"),
            f"I/O error: {full[:23]} (os error 28){full[23:]}",
        ),
    ):
        with pytest.raises(InputError) as caught, explained(tmp_path):
            raise error
        assert str(caught.value) == f"cannot write {tmp_path}: {told}"


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
    with pytest.raises(InputError, match="a exists already; `force` overwrites it, or choose another `out`"):
        refuse_existing(tmp_path / "a", force=False)


def test_folders_are_made_with_their_parents_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"cannot write into .*; choose another `out`") as caught:
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
    with pytest.raises(InputError, match="is a folder, and not a JSON file"):
        read_json(tmp_path)


# --- whose error it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("too slow"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/truth.h5"),
        PermissionError(errno.EACCES, "Permission denied", "/data/truth.h5"),
        KeyboardInterrupt(),
        InputError("something else"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_something_else_are_not_called_refusals_to_write(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, explained(tmp_path / "a.h5"):
        raise error
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        write_half_and_fail(tmp_path / "a.h5", error)
    assert caught.value is error


@pytest.mark.parametrize(
    "name",
    ["a.h5", "", ".a.h5.77.partial", "a.h5.77.partial", ".a.host.1-2.partial.h5", ".a.1.partial/frames.npy", "a.h5/x"],
)
def test_errors_that_name_the_file_its_folder_or_its_temporary_are_explained(tmp_path: Path, name: str) -> None:
    error = PermissionError(errno.EACCES, "x", str(tmp_path / name))
    told = r"cannot write .*a\.h5: Permission denied; choose another `out`$"
    with pytest.raises(InputError, match=told), explained(tmp_path / "a.h5"):
        raise error


@pytest.mark.parametrize("name", ["b.h5", "ab.h5", "other/a.h5", ".b.1.partial"])
def test_a_neighbour_is_another_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(PermissionError), explained(tmp_path / "a.h5"):
        raise PermissionError(errno.EACCES, "x", str(tmp_path / name))


def test_a_missing_source_of_the_body_is_named_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source\.bin"), atomic(tmp_path / "a.bin") as temporary:
        temporary.write_bytes((tmp_path / "source.bin").read_bytes())
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_what_only_writing_gives_is_a_refusal_even_without_a_name(tmp_path: Path, number: int) -> None:
    with pytest.raises(InputError) as caught:
        write_half_and_fail(tmp_path / "a.h5", OSError(number, "x"))
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'a.h5'}: {os.strerror(number)}; ")
    assert ("free some space" in str(caught.value)) == (number in (errno.ENOSPC, errno.EDQUOT))


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EINVAL])
def test_an_unnamed_error_of_the_body_stays_what_it_is(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write_half_and_fail(tmp_path / "a.h5", OSError(number, "x"))
    assert caught.value.errno == number


def test_h5py_names_the_file_in_its_text_alone(tmp_path: Path) -> None:
    (tmp_path / "truth.h5").write_text("no HDF5")
    with pytest.raises(OSError, match="file signature not found"), atomic(tmp_path / "a.h5"):
        h5py.File(tmp_path / "truth.h5")
    told = r"cannot write .*absent/a\.h5: No such file or directory"
    with pytest.raises(InputError, match=told), atomic(tmp_path / "absent" / "a.h5") as temporary:
        h5py.File(temporary, "w")


# --- stable storage ---------------------------------------------------------------------------------------


def refusing(number: int, folders: bool):
    """`os.fsync` that refuses folders, or files."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    return fsync


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF, errno.ENOSYS], ids=errno.errorcode.get
)
def test_folders_that_cannot_be_synced_cost_nothing(tmp_path: Path, monkeypatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number, folders=True))
    write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_without_sync_is_written_to(tmp_path: Path, monkeypatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number, folders=False))
    write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("folders", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_storage_that_fails_is_an_error(tmp_path: Path, monkeypatch, number: int, folders: bool) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number, folders))
    with pytest.raises(InputError, match=f"cannot write .*: {os.strerror(number)}"):
        write_text(tmp_path / "a.txt", "x")
    assert folders or names(tmp_path) == []


def test_a_file_s_permission_is_not_a_folder_s(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.EACCES, folders=False))
    (tmp_path / "a").touch()
    with pytest.raises(PermissionError):
        sync(tmp_path / "a")
    sync(tmp_path)


# --- what killed processes leave --------------------------------------------------------------------------

DIES_WHILE_WRITING = (
    "import os, signal, sys\nfrom pathlib import Path\nfrom slotssm.files import atomic\n"
    "with atomic(Path(sys.argv[1])) as temporary:\n    temporary.write_text('half')\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


def test_what_a_killed_writer_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, str(path)], check=False)
        assert len(names(tmp_path)) == 1  # the second has removed what the first left
    (left,) = names(tmp_path)
    for other in (".b.h5", left.replace(".a.", ".ab."), left.replace(".h5", ".gif"), left.replace(".a.", ".a.far-")):
        (tmp_path / other).write_text("another's")
    write_text(path, "whole")
    assert left not in names(tmp_path)
    assert len(names(tmp_path)) == 5


def test_temporary_files_of_living_writers_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    code = DIES_WHILE_WRITING.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(flush=True); input()")
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        with atomic(path) as ours:
            ours.write_text("ours")
            write_text(path, "inner")  # this process is writing the other one, too
            assert ours.exists()
            assert len(names(tmp_path)) == 3
        writer.communicate(b"\n")
    assert path.read_text() == "half"
    assert names(tmp_path) == ["a.h5"]


def test_long_names_have_temporary_files_too(tmp_path: Path) -> None:
    for letter in "ab":
        write_text(tmp_path / ("é" * 120 + letter), letter)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["a", "b"]


# --- folders ----------------------------------------------------------------------------------------------


def write_folder(path: Path, content: str) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_text(content)


def test_a_written_folder_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    for content in ("old", "new"):
        write_folder(path, content)
        assert (path / "inner" / "a.txt").read_text() == content
    assert names(tmp_path) == ["out.zarr"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), OSError(errno.EIO, "of the source")])
def test_a_failure_leaves_the_old_folder_and_is_passed_on(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out"
    write_folder(path, "old")

    def fail_half_way() -> None:
        with atomic_folder(path) as temporary:
            (temporary / "half").write_text("half")
            raise error

    with pytest.raises(type(error)) as raised:
        fail_half_way()
    assert raised.value is error
    assert (path / "inner" / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "")])
def test_a_full_disk_below_a_folder_is_a_refusal(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(InputError, match=f"cannot write {tmp_path}/out: No space"), atomic_folder(tmp_path / "out"):
        raise error


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_folder_killed_while_it_is_replaced_is_there_again(tmp_path: Path, moves: int) -> None:
    path = tmp_path / "out"
    write_folder(path, "old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom slotssm import files\n"
        "moves, rename = int(sys.argv[2]), os.rename\n"
        "def counted(*places):\n    global moves\n"
        "    if moves == 0:\n        os.kill(os.getpid(), signal.SIGKILL)\n    moves -= 1\n    rename(*places)\n"
        "os.rename = counted\nfiles.shutil.rmtree = lambda place: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with files.atomic_folder(Path(sys.argv[1])) as folder:\n    (folder / 'new').touch()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), str(moves)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    assert path.exists() == (moves != 1)
    restore_moved_aside(path)
    assert names(path) == (["new"] if moves == 2 else ["inner"])
    write_folder(path, "newer")
    assert names(tmp_path) == ["out"]


# --- locks ------------------------------------------------------------------------------------------------

HOLDS = (
    "import sys\nfrom pathlib import Path\nfrom slotssm.files import exclusive\n"
    "with exclusive(Path(sys.argv[1])):\n    print(flush=True)\n    input()\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path`/lock."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def is_free(path: Path) -> bool:
    try:
        with exclusive(path):
            return True
    except BusyError:
        return False


def test_a_lock_is_another_s_until_that_is_killed(tmp_path: Path, holder) -> None:
    busy = f"^{tmp_path} is in use by another process \\(process {holder.pid} on .+\\); wait until it has ended$"
    with pytest.raises(BusyError, match=busy), exclusive(tmp_path / "lock"):
        pass
    holder.kill()
    holder.wait()
    assert is_free(tmp_path / "lock")


def test_a_lock_holds_in_the_same_process_and_ends_with_its_block(tmp_path: Path) -> None:
    with suppress(RuntimeError), exclusive(tmp_path / "lock"):
        assert not is_free(tmp_path / "lock")
        raise RuntimeError
    assert is_free(tmp_path / "lock")


def test_a_child_by_fork_neither_frees_nor_keeps_the_lock(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock"):
        # in a process of one thread, since fork and threads do not mix
        code = (
            "import os, sys, time\nfrom pathlib import Path\nfrom slotssm.files import exclusive\n"
            "with exclusive(Path(sys.argv[1])):\n"
            "    child = os.fork()\n"
            "    if child == 0:\n        time.sleep(60)\n        os._exit(0)\n"
            "print(child, flush=True)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "other")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            child = int(process.stdout.readline())
            process.wait()
            try:
                assert is_free(tmp_path / "other")
            finally:
                os.kill(child, signal.SIGKILL)
        assert not is_free(tmp_path / "lock")


def test_the_folder_of_a_held_lock_may_be_removed(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    with exclusive(folder / "lock"):
        shutil.rmtree(folder)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL], ids=errno.errorcode.get
)
def test_a_file_system_without_locks_costs_a_note(tmp_path: Path, monkeypatch, caplog, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(OSError(number, "x")))
    done = []
    with exclusive(tmp_path / "lock"):
        done.append(1)
    assert done == [1]
    (record,) = caplog.records
    assert record.name == "slotssm"
    assert f"{tmp_path} has no locks ({os.strerror(number)}): other processes" in record.getMessage()
    monkeypatch.undo()
    assert is_free(tmp_path / "lock")


def test_a_lock_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"cannot write .*file/lock: "),
        exclusive(tmp_path / "file/lock"),
    ):
        pass
    monkeypatch.setattr(fcntl, "flock", raising(OSError(errno.EIO, "x")))
    with pytest.raises(InputError, match=r"cannot write .*lock: Input/output error"), exclusive(tmp_path / "lock"):
        pass


def test_errors_of_the_locked_work_are_its_own(tmp_path: Path) -> None:
    for error in (OSError(errno.ENOSPC, "x"), FileNotFoundError(errno.ENOENT, "x", "data.h5"), BrokenPipeError()):
        with pytest.raises(OSError) as caught, exclusive(tmp_path / "lock"):  # noqa: PT011
            raise error
        assert caught.value is error


def raising(error: BaseException):
    def refuse(*arguments: object) -> None:
        raise error

    return refuse


# --- text -------------------------------------------------------------------------------------------------


def test_text_is_utf_8_wherever_the_program_runs(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom slotssm.files import read_json, write_text\n"
        "from slotssm.documents import read_toml\nfolder = Path(sys.argv[1])\n"
        "write_text(folder / 'a.json', '\"\\u00e9\\u4e16\"')\nassert read_json(folder / 'a.json') == '\\u00e9\\u4e16'\n"
        "assert read_toml(folder / 'a.toml') == {'name': '\\u00e9'}\n"
    )
    (tmp_path / "a.toml").write_bytes('\ufeffname = "é"\n'.encode())
    ascii_alone = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=ascii_alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.json").read_bytes() == '"é世"'.encode()


def test_a_document_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"a\.json cannot be read as JSON: "):
        read_json(tmp_path / "a.json")
