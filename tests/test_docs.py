"""README and docs are true: their commands exist, their links lead somewhere; tests/cli/test_pages.py runs them."""

import re
import shlex
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


def anchors(page):
    """Anchors of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_exist(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert anchor in anchors(page.parent / target if target else page), (
                f"{page.name} links to {target}#{anchor}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_fill_in(page):
    assert not re.findall(r"@[A-Z]+@|PENDING|TBD|\?\?\?", page.read_text())
