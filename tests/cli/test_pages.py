"""Every block of every page is run as its reader would run it: from an empty folder, block after block.

Data sets and trainings are made small. A block that cannot be run says why in a comment above it,
`<!-- not run: REASON -->`; blocks of the language `text` are no code.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))}
LONG = ("data-sets.md", "cluster.md")
"""Pages whose commands take long."""
ELSEWHERE = {
    ("extending.md", "console"): "tests/cli/test_extending.py, for every example of the page",
    ("importing.md", "console"): "tests/cli/test_importing_page.py, which makes the sources",
    ("using-the-data.md", "py"): "tests/cli/test_export_command.py, without this package",
    ("runs.md", "console"): "tests/cli/test_runs_page.py, whose patterns of files a shell expands",
    ("README.md", "sh"): "installation; tests/cli/test_commands.py has the demo in small",
}
"""Languages of pages whose blocks other tests run, and where."""
OTHER_PROGRAMS = ("pip",)
"""What needs a network."""
FEW_EPISODES = {"--train": 4, "--val": 1, "--test": 2}
FEW_STEPS = ("num_steps=2", "batch_size=4", "eval_every_steps=2", "num_eval_episodes=1", "log_every_steps=1")


@dataclass(frozen=True)
class Block:
    reason: str | None
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(
        r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
    )
    return [Block(reason or None, language, code) for reason, language, code in found]


def commands(code: str) -> list[list[str]]:
    """The words of each command of a console block, without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]


def in_small(words: list[str]) -> list[str]:
    """A command with a few episodes and steps, where it does not say how many."""
    if words[0] == "generate":
        counts = [
            str(part) for option, count in FEW_EPISODES.items() if option not in words for part in (option, count)
        ]
        return [*words, *counts, "--workers", "1"]
    if words[0] == "export":
        return ["0-1" if word == "0-99" else word for word in words]
    if words[0] == "train" and {"--preset", "--config"} & set(words):
        settings = [f"train.{each}" for each in FEW_STEPS]
        # curricula and phases take more steps
        settings += ["train.phases=[]"] + (["task.curriculum=[]"] if "cpu-bcb" in words else [])
        if "--data" not in words:
            settings += [f"data.num_{option[2:]}={count}" for option, count in FEW_EPISODES.items()]
        return [*words, *(part for each in settings for part in ("--set", each))]
    return words


def run_console(code: str, slotssm) -> None:
    for program, *words in commands(code):
        if program in OTHER_PROGRAMS:
            continue
        assert program == "slotssm", f"{program} is not run"
        words, target = (words[:-2], words[-1]) if ">" in words else (words, None)
        done = slotssm(*in_small(words))
        assert done.code == 0, f"slotssm {' '.join(words)}: {done.err}"
        if target is not None:
            Path(target).write_text(done.out, encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_run_or_says_why_it_is_not(name):
    for block in blocks(PAGES[name]):
        known = block.reason or block.language in ("console", "python", "text") or (name, block.language) in ELSEWHERE
        assert known, f"{name}: mark this block as text, or as `<!-- not run: REASON -->`:\n{block.code}"


def test_there_are_blocks_to_run():
    run = [block for page in PAGES.values() for block in blocks(page) if block.reason is None]
    assert sum(block.language == "python" for block in run) >= 15
    assert sum(len(commands(block.code)) for block in run if block.language == "console") >= 50


def test_a_number_of_episodes_that_a_page_states_is_kept():
    assert in_small(["generate", "bcb", "--test", "4"])[2:] == [
        "--test",
        "4",
        "--train",
        "4",
        "--val",
        "1",
        "--workers",
        "1",
    ]
    assert in_small(["train", "--out", "runs/a", "--resume"]) == ["train", "--out", "runs/a", "--resume"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
        for name, page in PAGES.items()
        if blocks(page)
    ],
)
def test_a_page_runs_from_an_empty_folder(name, slotssm, workplace):
    for number, block in enumerate(blocks(PAGES[name])):
        if block.reason or (name, block.language) in ELSEWHERE:
            continue
        if block.language == "console":
            run_console(block.code, slotssm)
        elif block.language == "python" and not re.match(r"# \w+\.py\n", block.code):
            exec(compile(block.code, f"{name}-{number}", "exec"), {"__name__": f"{name}-{number}"})
