"""Readers that leave, streams that are closed or full, and characters that a terminal must not get."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from slotssm.errors import SlotSSMError
from slotssm_cli.commands import app
from slotssm_cli.terminal.console import Meter, note, result, result_json, result_table, visible
from slotssm_cli.terminal.streams import TolerantStream, tolerant_streams

PROGRAM = f"{shlex.quote(sys.executable)} -m slotssm"


def command_names(node=None, name="") -> list[str]:
    node = typer.main.get_command(app) if node is None else node
    children = getattr(node, "commands", {})
    return [name, *(leaf for child in children for leaf in command_names(children[child], f"{name} {child}"))]


@pytest.fixture
def shell(environment, workplace):
    """Run a line of the shell, where `slotssm` is the program; gives the program's exit code, stdout, stderr."""

    def call(line: str, **settings: str) -> subprocess.CompletedProcess:
        script = f'set -o pipefail\nslotssm() {{ exec {PROGRAM} "$@"; }}\n({line})\nexit ${{PIPESTATUS[0]}}'
        command = ["bash", "-c", script]
        return subprocess.run(command, env=environment | settings, capture_output=True, text=True, check=False)

    return call


# --- readers that leave -----------------------------------------------------------------------------------


@pytest.fixture
def unread():
    """The writing end of a pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def run(arguments, environment, **streams):
    command = [sys.executable, "-m", "slotssm", *arguments.split()]
    return subprocess.run(command, env=environment, text=True, check=False, **streams)


@pytest.mark.parametrize("name", command_names())
def test_help_that_nobody_reads_is_no_failure(name, environment, unread):
    done = run(f"{name} --help", environment, stdout=unread, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["--version", "presets --json", pytest.param("doctor", marks=pytest.mark.slow)])
def test_results_that_nobody_reads_are_no_failure(arguments, environment, unread):
    done = run(arguments, environment, stdout=unread, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_head_of_a_long_result(shell):
    done = shell("slotssm presets | head -1")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "presets", "")


@pytest.mark.parametrize("arguments", ["inspect absent.h5", "inspect absent.h5 --json", "frobnicate --json", ""])
def test_errors_keep_their_exit_code_without_a_reader(arguments, environment, unread):
    done = run(arguments, environment, stdout=unread, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == (1 if arguments else 0)
    assert run(arguments, environment, stdout=unread, stderr=unread).returncode == 2


MAKE = "generate bcb --train 2 --val 0 --test 0 --len 80 --size 16 --balls 1 --radius 2 --json --out d.h5"


@pytest.mark.parametrize("gone", ["unread", "full"])
def test_notes_that_nobody_reads_are_dropped(environment, workplace, unread, gone):
    stderr = unread if gone == "unread" else os.open("/dev/full", os.O_WRONLY)
    done = run(MAKE, environment, stdout=subprocess.PIPE, stderr=stderr)
    assert done.returncode == 0
    assert json.loads(done.stdout)["num_episodes"] == {"train": 2}
    failed = run("inspect absent.h5 --json", environment, stdout=subprocess.PIPE, stderr=stderr)
    assert failed.returncode == 2
    assert json.loads(failed.stdout)["exit_code"] == 2


# --- closed streams ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_goes_on_without_a_reader_of_progress(shell, environment, workplace):
    few = "train --preset tiny-oc --set train.num_steps=3 --set train.log_every_steps=1 --json"
    for number, closed in enumerate(("2>&-", "<&- >&- 2>&-")):
        done = shell(f"slotssm {few} --out run{number} {closed}")
        assert done.returncode == 0, done.stderr
        assert (workplace / f"run{number}" / "checkpoints" / "last").read_text() == "step-00000003\n"
        assert ("loss" in json.loads(done.stdout)["values"]) if closed == "2>&-" else done.stdout == ""


@pytest.mark.parametrize(
    "closed", [*(pytest.param(each, marks=pytest.mark.slow) for each in ("2>&-", ">&-", ">&- 2>&-")), "<&- >&- 2>&-"]
)
def test_files_do_not_take_the_place_of_closed_streams(shell, workplace, closed):
    """A data file on descriptor 1 or 2 would get what libraries print there."""
    assert shell(f"slotssm {MAKE} {closed}").returncode == 0
    assert shell(f"slotssm verify d.h5 --all {closed}").returncode == 0
    with h5py.File(workplace / "d.h5") as file:
        assert file["train/frames"].shape[0] == 2
    assert shell(f"slotssm inspect absent.h5 {closed}").returncode == 2


def test_a_result_that_a_full_disk_does_not_take_is_a_failure(environment):
    with open("/dev/full", "w") as full:
        done = run("presets", environment, stdout=full, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (1, "slotssm: cannot write the result: No space left on device\n")
        # the first fault decides
        done = run("inspect absent.h5 --json", environment, stdout=full, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (2, "slotssm: absent.h5 does not exist\n")


def test_programs_without_a_console_have_no_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    note("x")  # not to stdout instead
    with tolerant_streams():
        note("x")
        result("x")
        Meter("x", "steps").update(1, 2)
        result_table("", ["a"], [["b"]])
    assert sys.stdout is None
    assert sys.stderr is None


class Broken(io.StringIO):
    """A stream whose every use fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error, self.num_tried = error, 0

    def write(self, text: str) -> int:
        self.num_tried += 1
        raise self._error


def test_an_outlet_tries_once():
    for error in (BrokenPipeError(32, "gone"), ValueError("I/O operation on closed file")):
        for required in (True, False):
            stream = Broken(error)
            outlet = TolerantStream(stream, required)
            assert [outlet.write("abc"), outlet.write("d")] == [3, 1]
            outlet.flush()
            assert stream.num_tried == 1
    with pytest.raises(SlotSSMError, match=r"^cannot write the result: full$"):
        TolerantStream(Broken(OSError(28, "full")), required=True).write("a")
    TolerantStream(Broken(OSError(28, "full")), required=False).write("a")


# --- encodings --------------------------------------------------------------------------------------------

PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
        pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.slow),
        PLAIN,
    ],
    ids=["ascii", "cp1252", "C"],
)
def test_what_an_encoding_lacks_is_replaced(environment, workplace, settings):
    def call(*arguments):
        command = [sys.executable, "-m", "slotssm", *arguments]
        return subprocess.run(command, env=environment | settings, capture_output=True, check=False)

    assert call("generate", "bcb", "--help").returncode == 0
    assert b"\n" in call("presets").stdout
    absent = call("inspect", "世界→é.h5")
    assert absent.returncode == 2
    assert absent.stderr.startswith(b"slotssm: ")
    assert absent.stderr.endswith(b".h5 does not exist\n")
    assert b"Traceback" not in absent.stderr


def test_bytes_that_are_no_text_do_not_stop_a_message(environment, workplace):
    command = [sys.executable, "-m", "slotssm", "inspect", b"\xff\xfe.h5", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "slotssm: \\xff\\xfe.h5 does not exist\n"
    assert json.loads(done.stdout)["error"] == "\udcff\udcfe.h5 does not exist"


# --- what files say ---------------------------------------------------------------------------------------

NASTY = "\x1b[31mred\x1b]0;title\x07\r\x9b2J\u202eabc"


@given(st.text())
def test_visible_text_steers_nothing_and_keeps_letters(text):
    shown = visible(text)
    assert shown.isprintable() or not any(character in shown for character in "\x1b\x07\r\n\x9b\u202e\x7f\x00")
    shown.encode()
    if text.isprintable():
        assert shown == text


def test_visible_text_says_what_was_there():
    assert visible(NASTY) == "\\x1b[31mred\\x1b]0;title\\x07\\x0d\\x9b2J\\u202eabc"
    assert visible("a\nb\udcff") == "a\\x0ab\\xff"
    assert visible("a\nb", kept="\n") == "a\nb"
    assert visible("Größe – 世界") == "Größe – 世界"


def test_no_line_or_table_shows_them_raw(capsys):
    note(NASTY)
    result(f"one\n{NASTY}")
    result_table(NASTY, [NASTY, "b"], [[NASTY, "[bold]x[/bold] :cat:"]])
    result_json({"a": NASTY})
    meter = Meter(NASTY, "steps")
    meter.say(NASTY)
    told = capsys.readouterr()
    for raw in "\x1b\x07\r\x9b\u202e":
        assert raw not in told.out + told.err
    assert told.out.startswith("one\n\\x1b[31mred")
    assert "[bold]x[/bold] :cat:" in told.out
    assert json.loads(told.out[told.out.index("{") :]) == {"a": NASTY}


def test_a_bar_shows_them_neither(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Meter("\x1b[31m[bold]label[/bold]", "steps") as meter:
        meter.update(1, 3, "\x07[red]values[/red]")
        meter.say("\x1b]0;said\x07")
        meter.update(3, 3)
    shown = screen.getvalue()
    assert "\\x1b[31m[bold]label[/bold]" in shown
    assert "\\x07[red]values[/red]" in shown
    assert "\\x1b]0;said\\x07" in shown
    assert "\x07" not in shown


def test_an_episode_file_cannot_steer_the_terminal(slotssm, home, tmp_path):
    data = shutil.copy(next((home / "data").glob("tiny-oc-*.h5")), tmp_path / "\x1b[2J.h5")
    with h5py.File(data, "r+") as file:
        file.attrs["generator"] = NASTY
    for arguments in (("inspect", data), ("verify", data), ("eval", data), ("inspect", str(data) + "\x1b[31m")):
        told = slotssm(*arguments)
        assert "\x1b" not in told.out + told.err
    assert json.loads(slotssm("inspect", data, "--json").out)["attrs"]["generator"] == NASTY


# --- signals before the work ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_libraries_load_is_one_line(environment, workplace, number):
    (workplace / "torch.py").write_text("import pathlib, time\npathlib.Path('loading').touch()\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "slotssm", "eval", "nowhere", "--json"]
    paths = os.pathsep.join([str(workplace), *sys.path])
    process = subprocess.Popen(
        command, env=environment | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(1000):
        if (workplace / "loading").exists():
            break
        time.sleep(0.02)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert errors == f"slotssm: interrupted by {number.name}\n"
    assert json.loads(out)["exit_code"] == 3


SIGNALLED = """
    import os, signal, sys
    from slotssm.interrupts import stop_requests
    from slotssm.errors import Interrupted, InputError
    from slotssm_cli import commands, main
    from slotssm_cli.terminal.console import result

    def one():
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGTERM)  # in the last step: everything is written

    def presets():
        one()
        {then}

    def two():
        with stop_requests() as stop:
            if stop:
                raise Interrupted(f"{{stop.signal_name}}: saved")

    commands.app.command("presets")(presets)
    sys.argv = ["slotssm", "presets"]
    main.main()
"""


@pytest.mark.parametrize(
    ("then", "code", "out", "errors"),
    [
        ("result('done')", 0, "done\n", ""),
        ("two()", 3, "", "slotssm: SIGTERM: saved\n"),
        ("raise InputError('wrong')", 2, "", "slotssm: wrong\n"),
        ("raise BrokenPipeError(32, 'encoder')", 3, "", "slotssm: interrupted by SIGTERM\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 3, "", "slotssm: interrupted by SIGTERM\n"),
        ("import atexit; atexit.register(os.kill, os.getpid(), signal.SIGTERM)", 0, "", ""),
    ],
    ids=["done", "next work", "own error", "child's error", "again", "at exit"],
)
def test_a_signal_in_the_last_step_is_for_what_comes_next(environment, then, code, out, errors):
    script = textwrap.dedent(SIGNALLED.format(then=then))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, errors)


# --- ways to start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["slotssm", "slotssm_cli.main"])
def test_modules_are_the_program(environment, module):
    command = [sys.executable, "-m", module, "-h"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "Usage: slotssm [OPTIONS] COMMAND" in done.stdout


@pytest.mark.parametrize(
    "arguments", ["--help", pytest.param("generate bcb -h", marks=pytest.mark.slow), "presets --json"]
)
def test_without_docstrings_nothing_fails(environment, arguments):
    command = [sys.executable, "-OO", "-m", "slotssm_cli.main", *arguments.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"), [("tr", "train"), ("generate b", "bcb bouncing"), ("eval --skip", "--skip-frames")]
)
def test_shells_complete_commands_and_options(environment, typed, offered):
    words = f"slotssm {typed}"
    settings = {"_SLOTSSM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-m", "slotssm"]
    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered.split()


def test_completion_is_shown_and_installed(shell, tmp_path):
    assert "_SLOTSSM_COMPLETE=complete_bash" in shell("slotssm --show-completion").stdout
    assert shell("slotssm --install-completion", HOME=str(tmp_path)).returncode == 0
    assert list(tmp_path.rglob("slotssm.sh"))


def test_the_remaining_time_counts_neither_what_came_before_nor_the_first_unit(monkeypatch, capsys):
    """A meter may exist long before its work begins, and the first unit may include compilation."""
    now = [0.0]
    monkeypatch.setattr("slotssm_cli.terminal.console.time.monotonic", lambda: now[0])
    meter = Meter("train", "steps")
    for done, at in ((1, 100.0), (2, 102.0), (6, 110.0)):
        now[0] = at
        meter.update(done, 16)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["train: 1/16 steps", "train: 6/16 steps, 20.0 s left"]
    now[0] = 111.0
    meter.update(16, 16)
    assert capsys.readouterr().err.splitlines() == ["train: 16/16 steps"]
    # another piece of work on the same meter
    for done, at in ((0, 190.0), (8, 191.0), (12, 196.0)):
        now[0] = at
        meter.update(done, 16)
    assert capsys.readouterr().err.splitlines() == ["train: 0/16 steps", "train: 12/16 steps, 5.0 s left"]
    # counted from 0, as by generation: the first unit alone says nothing
    now[0] = 200.0
    meter = Meter("generate", "episodes")
    for done, at in ((0, 200.0), (1, 300.0), (11, 320.0)):
        now[0] = at
        meter.update(done, 21)
    assert capsys.readouterr().err.splitlines() == [
        "generate: 1/21 episodes",
        "generate: 11/21 episodes, 20.0 s left",
    ]
