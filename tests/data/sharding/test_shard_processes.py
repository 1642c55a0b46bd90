"""Writing in several processes, and several writers of one output."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from small_work import Make, small_work

from slotssm.data.contents import content_hash
from slotssm.data.sharding import DamagedSourceError, workers, write_episodes
from slotssm.errors import Interrupted, SlotSSMError

PROGRAM = Path(__file__).with_name("small_work.py")
PATIENCE_S = 60
MANY = {"num_train": 400, "num_val": 0, "size": 2, "workers": 2}


def start(out: Path, **settings: Any) -> subprocess.Popen:
    """Write in a process at the head of a group of its own."""
    command = [sys.executable, str(PROGRAM), json.dumps({"out": str(out), **settings})]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=out.parent
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    words, complaints = process.communicate(timeout=PATIENCE_S)
    return process.returncode, words, complaints


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def num_shards(out: Path) -> int:
    return len(list(out.with_name(out.name + ".parts").glob("*.h5")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_content_does_not_depend_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on where the caller goes meanwhile: the output is named from where it was started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    reports: list[tuple[int, int]] = []

    def on_progress(done: int, total: int) -> None:
        reports.append((done, total))
        os.chdir(tmp_path / "elsewhere" if done < total else tmp_path)

    write_episodes(small_work(workers=2), Path("two.h5"), on_progress=on_progress)
    write_episodes(small_work(), Path("one.h5"))
    assert content_hash(tmp_path / "two.h5") == content_hash(tmp_path / "one.h5")
    assert (reports[0], reports[-1]) == ((0, 23), (23, 23))
    assert reports == sorted(reports)
    assert names(tmp_path) == ["elsewhere", "one.h5", "two.h5"]


# --- faults in a worker -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "reason"),
    [
        ("killed", SlotSSMError, "a worker process died.*`resume` continues.*`workers` 1"),
        ("exception", ValueError, "a fault of the generator's own"),
        ("damaged", DamagedSourceError, "clip7.mp4 is damaged"),
    ],
)
def test_a_fault_in_a_worker_has_its_own_reason(
    tmp_path: Path, fault: str, error: type[Exception], reason: str
) -> None:
    out = tmp_path / "d.h5"
    with pytest.raises(error, match=reason) as caught:
        write_episodes(small_work(Make(fault=fault, at=13), workers=2), out)
    assert "\n" not in str(caught.value)
    assert getattr(caught.value, "exit_code", 1) == {"killed": 1, "exception": 1, "damaged": 2}[fault]
    if fault == "damaged":
        assert names(tmp_path) == []
        return
    assert num_shards(out) > 0
    write_episodes(small_work(), out, resume=True)
    assert names(tmp_path) == ["d.h5"]


@pytest.mark.parametrize(("signalled", "error"), [(True, Interrupted), (False, SlotSSMError)])
def test_death_of_the_workers_is_an_interruption_if_a_signal_came_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signalled: bool, error: type[SlotSSMError]
) -> None:
    def wait_in_vain(*_: object, **__: object) -> None:
        if signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        raise BrokenProcessPool

    monkeypatch.setattr(workers, "wait", wait_in_vain)
    with pytest.raises(error, match="`resume` continues") as caught:
        write_episodes(small_work(workers=2), tmp_path / "d.h5")
    assert caught.type is error


def test_without_the_means_for_processes_one_does_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_here(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(workers, "ProcessPoolExecutor", none_here)
    with caplog.at_level(logging.WARNING, "slotssm"):
        assert write_episodes(small_work(workers=2), tmp_path / "d.h5")
    assert caplog.messages == [
        "no worker processes here ([Errno 38] Function not implemented); continuing with one process"
    ]


def test_a_script_without_the_guard_is_told_so(tmp_path: Path) -> None:
    """Its workers run it again; a script that waits for a busy file must not wait for its own parent."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"import sys, time; sys.path.append({str(PROGRAM.parent)!r})\n"
        "from small_work import small_work\n"
        "from pathlib import Path\n"
        "from slotssm.data.sharding import write_episodes\n"
        "from slotssm.errors import BusyError\n"
        "while True:\n"
        "    try:\n"
        "        write_episodes(small_work(workers=2), Path('d.h5'))\n"
        "        break\n"
        "    except BusyError:\n"
        "        time.sleep(0.05)\n"
    )
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=tmp_path
    )
    assert result.returncode == 1
    assert "lacks the guard (if __name__ == '__main__':)" in result.stderr.splitlines()[-1]


def test_windows_gets_no_more_workers_than_it_can_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda number, *_, **__: asked.append(number))
    for platform in ("win32", "linux"):
        monkeypatch.setattr(sys, "platform", platform)
        workers.open_pool(None, 100)  # type: ignore[arg-type]
    assert asked == [61, 100]


# --- signals ------------------------------------------------------------------------------------------------


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "d.h5"
    process = start(out, work=MANY, make={"pause_s": 0.01})
    wait_until(lambda: num_shards(out) >= 5, process)
    process.kill()
    finish(process)
    deadline = time.monotonic() + 10
    while group_is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not group_is_alive(process.pid)
    assert num_shards(out) < 200


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)]
)
def test_a_polite_signal_stops_resumable(tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:
    """Schedulers and terminals signal the workers too."""
    out = tmp_path / "d.h5"
    process = start(out, work=MANY, make={"pause_s": 0.01})
    wait_until(lambda: num_shards(out) >= 5, process)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    code, words, complaints = finish(process)
    assert code == 3, words + complaints
    assert words.startswith(f"Interrupted {number.name}: ")
    assert words.endswith(" of 400 episodes are kept; `resume` continues\n")
    assert (words.count("\n"), complaints) == (1, "")
    assert not out.exists()
    # what it says is kept is kept, and nothing half-written lies beside it
    assert 10 <= int(words.split()[2]) == 2 * num_shards(out)
    if not whole_group:
        assert not list(out.with_name(out.name + ".parts").glob("*.partial"))


def test_ctrl_c_while_the_workers_start_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "d.h5"
    process = start(out, work=MANY, make={"pause_s": 0.01})
    wait_until((out.with_name("d.h5.parts") / "plan.json").exists, process)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    code, words, complaints = finish(process)
    assert (code, complaints) == (3, ""), words
    assert words.startswith("Interrupted SIGINT: ")


# --- several writers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "acceptable"),
    [
        ({}, ("written", "BusyError", "InputError")),
        ({"force": True}, ("written", "BusyError")),
        ({"resume": True}, ("written", "complete already", "BusyError")),
    ],
)
def test_starters_at_once_make_one_output(tmp_path: Path, how: dict[str, bool], acceptable: tuple[str, ...]) -> None:
    """Each with a seed of its own where that is allowed; they take turns or give way, and never mix."""
    hashes = {}
    for seed in range(4):
        write_episodes(small_work(Make(seed)), tmp_path / "whole.h5", force=True)
        hashes[content_hash(tmp_path / "whole.h5")] = seed
    folder = tmp_path / "data"
    folder.mkdir()
    out, go = folder / "d.h5", tmp_path / "go"
    seeds = [0] * 4 if "resume" in how else range(4)
    processes = [start(out, go=str(go), how=how, make={"seed": seed, "pause_s": 0.001}) for seed in seeds]
    time.sleep(0.6)
    go.touch()
    outcomes = [finish(process) for process in processes]
    assert all(words.startswith(acceptable) for _, words, _ in outcomes), outcomes
    written = [
        seed for seed, (code, words, _) in zip(seeds, outcomes, strict=True) if words == "written\n" and code == 0
    ]
    assert hashes[content_hash(out)] in written
    assert len(written) == 1 or "force" in how, outcomes
    assert names(folder) == ["d.h5"]


def test_an_output_that_was_finished_meanwhile_is_not_erased(tmp_path: Path) -> None:
    """A second starter looks, the first one finishes or is killed, and only then is the lock free."""
    out = tmp_path / "d.h5"
    first = start(out, work={"num_train": 40}, make={"pause_s": 0.01})
    wait_until(lambda: num_shards(out) >= 1, first)
    answers = []
    while first.poll() is None:
        second = start(out, make={"seed": 1})
        answers.append(finish(second)[:2])
    assert finish(first)[:2] == (0, "written\n")
    assert all(code == 2 and words.startswith(("BusyError", "InputError")) for code, words in answers), answers
    write_episodes(small_work(num_train=40), tmp_path / "whole.h5")
    assert content_hash(out) == content_hash(tmp_path / "whole.h5")
