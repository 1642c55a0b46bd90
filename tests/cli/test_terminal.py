"""What people read in a terminal: nothing is cut at any width, numbers are short, and help is complete."""

import json
import re
import shlex

import pytest
import typer

from slotssm_cli.commands import app
from slotssm_cli.terminal import console
from slotssm_cli.terminal.console import in_words, result_facts, result_table
from slotssm_cli.terminal.examples import EXAMPLES
from slotssm_cli.terminal.help import GROUPS, WORK_ORDER

ROOT = typer.main.get_command(app)


def leaves(command=ROOT, path=("slotssm",)) -> dict:
    children = getattr(command, "commands", None) or {}
    if not children:
        return {" ".join(path): command}
    return {name: leaf for key, child in children.items() for name, leaf in leaves(child, (*path, key)).items()}


COMMANDS = {name: command for name, command in leaves().items() if not name.endswith("KIND")}


@pytest.fixture(params=[80, 40])
def width(request, monkeypatch):
    """A terminal of that many columns."""
    for name, value in {"COLUMNS": request.param, "TTY_COMPATIBLE": 1, "NO_COLOR": 1, "TERM": "xterm"}.items():
        monkeypatch.setenv(name, str(value))
    return request.param


def without_breaks(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_cuts_no_name_default_or_sentence(slotssm, width, name):
    shown = slotssm(*name.split()[1:], "-h")
    assert shown.code == 0
    assert "…" not in shown.out
    # the type of a value is one lower-case word
    assert set(re.findall("<.*?>", shown.out)) <= {f"<{kind}>" for kind in ("int", "float", "str", "path")}
    words = without_breaks(shown.out)
    for parameter in COMMANDS[name].params:
        is_argument = parameter.param_type_name == "argument"
        named = [parameter.metavar or parameter.name] if is_argument else [*parameter.opts, *parameter.secondary_opts]
        for option in named:
            # arguments are in capitals where they have no metavar
            assert without_breaks(option).lower() in words.lower()
        assert without_breaks(parameter.help) in words
        if isinstance(parameter.show_default, str):
            assert f"[default:({without_breaks(parameter.show_default)})" in words


def test_both_options_for_help_show_the_same(slotssm):
    for command in ((), ("train",), ("generate",), ("generate", "bcb")):
        assert slotssm(*command, "-h").out == slotssm(*command, "--help").out != ""


def test_the_commands_are_listed_in_the_order_of_work(slotssm):
    shown = slotssm("--help").out.partition("Commands:")[2]
    listed = re.findall(r"^  ([\w-]+)  ", shown, re.M)
    assert listed[0] == "generate"
    assert set(listed) == set(ROOT.commands)
    known = [name for name in WORK_ORDER if name in listed]
    assert listed[: len(known)] == known


def test_completion_can_be_installed(slotssm):
    assert "--install-completion" in slotssm("--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_with_options_that_exist(slotssm, name):
    assert EXAMPLES.get(name), f"{name} has no example in slotssm_cli/terminal/examples.py"
    shown = slotssm(*name.split()[1:], "--help").out
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    for example in EXAMPLES[name]:
        assert f"  {example}\n" in shown
        words = shlex.split(example)
        assert words[: len(name.split())] == name.split()
        assert {word for word in words if word.startswith("--")} <= known


def test_groups_name_parameters_that_exist():
    known = {parameter.name for command in COMMANDS.values() for parameter in command.params} | {"help"}
    assert {name for names in GROUPS.values() for name in names} <= known


# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_columns", [2, 4, 9])
def test_a_table_cuts_nothing_and_fits(width, capsys, num_columns):
    columns = [f"column-{number}" for number in range(num_columns)]
    rows = [[f"a-long-name-{row}", *(f"value {row}.{column} of it" for column in columns[1:])] for row in range(3)]
    result_table("title", columns, rows)
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    for row in rows:
        assert row[0] in shown
        assert all(word in shown for cell in row for word in cell.split())
    assert all(column in shown for column in columns)


REAL = {
    "eval": (
        ("metric", "value", "95 % interval", "units", "convention and baselines"),
        ("fg-ari", "0.01946", "0.006196 to 0.03636", "16 videos", "empty=skip mask_source=decoder"),
        (
            *("identity-switches", "0.09048", "0.07967 to 0.1013", "16 videos"),
            "matching=hungarian average=unit absent=skip mask_source=decoder",
        ),
    ),
    "runs": (
        ("run", "state", "model", "data", "steps", "scores"),
        (
            *("runs/tiny-oc-001", "complete", "oc-slotssm", "tiny-oc-b42d4ff7", "60 / 60"),
            "val mse 0.06158, fg-ari 0.01925, miou 0.09936  test fg-ari 0.01804",
        ),
    ),
    "inspect": (
        ("field", "shape", "dtype", "unit or categories", "stored", "min / mean / max, or shares"),
        ("train/objects/color", "64×2", "uint8", "red, green, blue, yellow, cyan", "none, 128 B", "0 / 2.086 / 5"),
        ("train/objects/velocity", "64×6×2×2", "float32", "px/frame", "none, 6.0 KiB", "-1.337 / -0.002195 / 1.337"),
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_no_word_of_a_real_table_is_cut_at_any_width(name, monkeypatch, capsys):
    columns, *rows = REAL[name]
    for available in range(40, 161):
        monkeypatch.setattr(console, "_width", lambda available=available: available)
        result_table("", columns, rows)
        shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
        words = shown.split()
        assert all(word in words for row in rows for cell in row for word in cell.split()), (available, shown)
        assert available < 80 or max(map(len, shown.splitlines())) <= available


def test_commands_with_tables_show_all_names(slotssm, home, width, tmp_path):
    from slotssm.experiments.presets import PRESETS

    assert set(PRESETS) <= set(slotssm("presets").out.split())
    data = next((home / "data").glob("tiny-oc-*.h5"))
    scores = tmp_path / "a.json"
    metrics = ("--metric", "fg-ari,miou")
    shown = {
        "test/objects/position": slotssm("inspect", data).out,
        "mse-mean-image": slotssm("inspect", "runs/tiny-oc-001").out,
        "fg-ari": slotssm("eval", "runs/tiny-oc-001", *metrics, "--out", scores).out,
        "miou": slotssm("eval", "--compare", scores, scores).out,
        "num_steps": slotssm("train", "--preset", "tiny-oc", "--dry-run").out,
    }
    for name, text in shown.items():
        assert name in text
        assert "…" not in text
        # the configuration of a run is TOML
        facts = "\n".join(line for line in text.splitlines() if " = " not in line)
        assert not re.search(r"\d\.\d{7}|[{}]|None", facts), facts


def test_intervals_do_not_look_cut(slotssm, home):
    shown = slotssm("eval", "runs/tiny-oc-001", "--metric", "mse").out
    assert re.search(r"\d to 0\.\d+", shown)
    assert "…" not in shown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (True, "yes"),
        (0.11625181138515472, "0.1163"),
        (1234567, "1234567"),
        ({"loss": 0.25, "split": "train", "none": None}, "loss 0.25, split train, none –"),
        ([[0, 0, 0], [255, 0, 0]], "(0, 0, 0), (255, 0, 0)"),
        ({"sizes": [1, 2], "part": {"a": 1}}, "sizes (1, 2), part (a 1)"),
        ([], "–"),
        ({}, "–"),
    ],
)
def test_values_in_words(value, words):
    assert in_words(value) == words


def test_facts_are_wrapped_between_words(width, capsys):
    result_facts({"versions": {f"package{number}": "1.2.3" for number in range(20)}, "b": "x" * 100})
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width or "x" * 100 in line for line in lines)
    assert lines[0].startswith("versions  package0 1.2.3,")
    assert all(line.startswith(" " * 10) for line in lines[1:-2])


# --- verbose ----------------------------------------------------------------------------------------------


def test_verbose_prints_the_traceback_of_an_error_and_the_same_line(slotssm, workplace):
    plain, told = slotssm("eval", "nowhere"), slotssm("eval", "nowhere", "--verbose")
    assert (plain.code, told.code) == (2, 2)
    assert "Traceback" not in plain.err
    assert "Traceback (most recent call last)" in told.err
    assert told.error_lines == plain.error_lines


def test_verbose_prints_what_the_library_logs_at_any_level(slotssm, workplace, monkeypatch):
    import logging

    from slotssm.experiments.measurement import checkup

    def check():
        logging.getLogger("slotssm").info("a detail")
        return []

    monkeypatch.setattr(checkup, "check_machine", check)
    assert "a detail" not in slotssm("doctor", "--json").err
    assert "note: a detail" in slotssm("doctor", "--json", "--verbose").err
    assert "a detail" not in slotssm("doctor", "--json").err


def test_json_stays_one_document_with_verbose(slotssm, workplace):
    assert json.loads(slotssm("presets", "--json", "--verbose").out)


def test_an_unexpected_error_is_a_document_with_verbose_too(slotssm, workplace, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("all wrong")

    monkeypatch.setattr("slotssm.experiments.overview.listing.list_runs", fail)
    told = slotssm("runs", "--json", "--verbose")
    assert (told.code, json.loads(told.out)) == (1, {"error": "RuntimeError: all wrong", "exit_code": 1})
    assert "Traceback" in told.err
    assert told.error_lines == ["slotssm: RuntimeError: all wrong"]
    assert "(--verbose prints the traceback)" in slotssm("runs").err
