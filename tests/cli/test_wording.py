"""The core names arguments, the command line its options."""

import logging

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from slotssm_cli.commands import app
from slotssm_cli.terminal.wording import _ALIASES, Notes, spell

ROOT = typer.main.get_command(app)


def command(name: str):
    found = ROOT
    for word in name.split():
        found = found.commands[word]
    return found


@pytest.mark.parametrize(
    ("name", "message", "spelled"),
    [
        ("eval", "`skip_frames` and `clip_len`", "--skip-frames and --clip-len"),
        ("eval", "`conventions` x is unknown", "--conventions x is unknown"),
        ("eval", "choose a `run`", "choose a RUN"),
        ("eval", "`fit_split` val", "--probe-split val"),
        ("train", "`assignments` a=1", "--set a=1"),
        ("train", "`out` and `force`", "--out and --force"),
        ("generate bcb", "`num_train`, `num_val`, `num_test`", "--train, --val, --test"),
        ("generate bcb", "`length` 81", "--len 81"),
        ("generate bouncing", "`distinct_colors` off", "--distinct-colors off"),
        ("generate bouncing", "`camera_speed_px_per_frame`", "--camera-speed"),
        ("export", "`form` x, `shard_bytes`, `numbers`", "--to x, --shard-mb, --episodes"),
        ("export", "`data` is gone", "DATA is gone"),
        ("import", "`source` is empty; `num_frames`", "SRC is empty; --frames"),
        ("visualize", "`run` or `data`", "RUN or --data"),
        ("inspect", "`path` and `force` are", "PATH and force are"),
        ("reproduce", "`seed` 3, `lengths`", "--seeds 3, --lengths"),
        ("doctor", "`anything` goes; `slotssm train` is a command", "anything goes; `slotssm train` is a command"),
    ],
)
def test_names_become_the_command_s_options(name, message, spelled):
    assert spell(message, command(name)) == spelled


def test_without_a_command_names_stay():
    assert spell("`force` overwrites it", None) == "force overwrites it"


@given(st.text(alphabet=st.characters(exclude_characters="`")))
def test_text_without_names_stays(text):
    assert spell(text, command("eval")) == text


def leaves(node=ROOT, name=""):
    children = getattr(node, "commands", {})
    return [leaf for child in children for leaf in leaves(children[child], f"{name} {child}")] if children else [node]


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.name)
def test_every_parameter_is_spelled_as_its_command_takes_it(leaf):
    for parameter in leaf.params:
        spelled = spell(f"`{parameter.name}`", leaf)
        assert spelled in parameter.opts or (parameter.param_type_name == "argument" and spelled.isupper())


def test_the_table_names_parameters_that_exist():
    known = {parameter.name for leaf in leaves() for parameter in leaf.params}
    assert {name for candidates in _ALIASES.values() for name in candidates} <= known


def test_notes_are_told_once_each_in_the_words_of_the_command(capsys):
    log = logging.getLogger("slotssm")
    with Notes() as notes:
        notes.command = command("train")
        for _ in range(3):
            log.warning("the lock of %s; see `out`", "a\x1bb")
        log.warning("another")
        logging.getLogger("slotssm.data").warning("a room's")
        log.info("not asked for")
    assert capsys.readouterr().err.splitlines() == [
        "note: the lock of a\\x1bb; see --out",
        "note: another",
        "note: a room's",
    ]
    assert log.handlers == []
