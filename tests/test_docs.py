"""README and docs are true: their Python runs, their commands exist, their links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from slotssm_cli.commands import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)):
            found.append((f"{page.name}-{number}", code))
    return found


@pytest.fixture(scope="module")
def example_data(tmp_path_factory):
    """The files that the pages speak of."""
    from generators.bcb import BCBRecipe
    from generators.writer import generate
    from slotssm.config import RecipeData
    from slotssm.documents import override
    from slotssm.experiments.datasets import ensure_own_data, spec_of
    from slotssm.experiments.presets import preset
    from slotssm.experiments.runs import start_run
    from slotssm.training.run import RunDirectory

    folder = tmp_path_factory.mktemp("docs")
    counts = {"num_train": 2, "num_val": 1, "num_test": 1}
    generate(RecipeData(recipe=BCBRecipe(), **counts), folder / "data" / "bcb-earliest-80.h5", workers=1)
    config = override(preset("tiny-oc"), {"train": {"num_steps": 2}}, "the pages")
    data, run = ensure_own_data(config, folder / "data"), RunDirectory(folder / "runs" / "tiny-oc")
    start_run(config, spec_of(config.data), data, run, "cpu", print)
    shutil.copytree(run.path, folder / "runs" / "tiny-oc-001")
    return folder


# whole files are run through the command line, see tests/cli/test_extending.py
SNIPPETS = [(name, code) for name, code in blocks("python") if not re.match(r"# \w+\.py\n", code)]


@pytest.mark.parametrize(("name", "code"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_python_blocks_run(name, code, example_data, monkeypatch):
    monkeypatch.chdir(example_data)
    exec(compile(code, name, "exec"), {"__name__": name})


def console_commands() -> list[str]:
    lines = [line for _, code in blocks("console") for line in code.replace("\\\n", "").splitlines()]
    commands = [line[2:].split("#")[0].split(" > ")[0].strip() for line in lines if line.startswith("$ ")]
    return [command for command in commands if command.startswith("slotssm")]


def test_there_are_commands_to_check():
    assert len(console_commands()) >= 10
    assert any(command.startswith("slotssm generate bcb --len 2560") for command in console_commands())


@pytest.mark.parametrize("line", sorted(set(console_commands())))
def test_documented_commands_have_existing_options(line):
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while words and getattr(command, "commands", {}):
        # a group of generators takes names of plugins too
        command = command.commands.get(words[0]) or command.commands["KIND"]
        words.pop(0)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_fill_in(page):
    assert not re.findall(r"@[A-Z]+@|PENDING|TBD|\?\?\?", page.read_text())
