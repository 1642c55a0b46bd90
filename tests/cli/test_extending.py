"""The plugins of docs/extending.md, run as they stand: trained, scored and drawn through the command line."""

import html
import json
import re
import shlex
from pathlib import Path

import pytest

from generators.writer import generate
from slotssm import plugins
from slotssm.config import RecipeData
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import load
from slotssm.registry import REGISTRIES

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```\n+```console\n(.*?)^```", PAGE, re.M | re.S)
FEW = ("train.num_steps=4", "train.eval_every_steps=4", "train.log_every_steps=1", "train.checkpoint_every_steps=4")


@pytest.fixture(autouse=True)
def _forget_plugins():
    """What a plugin registers ends with the test."""

    def forget():
        plugins._loaded.clear()
        for registry in REGISTRIES:
            for name in [name for name, entry in registry.known().items() if entry.plugin]:
                del registry._entries[name]

    forget()
    yield
    forget()


@pytest.fixture
def lab(workplace):
    """A folder with all plugins of the page."""
    for name, code, _ in EXAMPLES:
        (workplace / name).write_text(f"# {name}\n{code}", encoding="utf-8")
    return workplace


def test_the_page_has_one_example_of_each_kind():
    registered = [re.search(r"@register_(\w+)\(", code)[1] for _, code, _ in EXAMPLES]
    assert registered == ["time_mixer", "model", "task", "generator"]


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, code, _ in EXAMPLES])
def test_an_example_takes_less_than_forty_lines(name, code):
    assert len([line for line in code.splitlines() if line.strip()]) < 40


@pytest.mark.parametrize(("name", "console"), [(name, console) for name, _, console in EXAMPLES])
def test_an_example_is_trained_scored_and_drawn(lab, slotssm, name, console):
    commands = [shlex.split(line.removeprefix("$ slotssm ")) for line in console.splitlines()]
    assert {"train", "eval", "visualize"} <= {command[0] for command in commands}
    for command in commands:
        if command[0] == "train":
            command += [word for each in FEW for word in ("--set", each)]
        done = slotssm(*command)
        assert done.code == 0, done.err
    run = next(Path("runs").iterdir())
    assert list((run / "figures").glob("*.gif"))
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses if line["split"] == "train"] == [1, 2, 3, 4]
    assert slotssm("report", run, "--plugin", name, "--out", "run.html", "--episodes", 1).code == 0
    repeats = f"slotssm eval {run} --split test --plugin {lab / name}"
    assert repeats in html.unescape(Path("run.html").read_text())


@pytest.mark.parametrize(("name", "console"), [(name, console) for name, _, console in EXAMPLES[:3]])
def test_a_run_is_refused_without_its_plugin_in_one_line(lab, slotssm, name, console):
    train = shlex.split(console.splitlines()[0].removeprefix("$ slotssm "))
    assert slotssm(*train, *(word for each in FEW for word in ("--set", each))).code == 0
    (run,) = Path("runs").iterdir()
    assert [each["plugin"] for each in json.loads((run / "run.json").read_text())["plugins"]] == [name]
    for command in (("eval", run), ("visualize", run), ("inspect", run), ("train", "--resume", "--out", run)):
        plugins._loaded.clear()
        for registry in REGISTRIES:
            for each in [key for key, entry in registry.known().items() if entry.plugin]:
                del registry._entries[each]
        refused = slotssm(*command)
        assert refused.code == 2
        (line,) = refused.error_lines
        assert f"needs the plugin {name}" in line
        assert line.endswith("load it with --plugin")
        assert slotssm(*command, "--plugin", name).code == 0


def test_workers_load_the_plugin_too(lab, slotssm):
    generate = ("generate", "drops", "--plugin", "drops.py", "--train", 2000, "--val", 0, "--test", 0)
    assert slotssm(*generate, "--out", "one.h5", "--workers", 1).code == 0
    done = slotssm(*generate, "--out", "two.h5", "--workers", 2)
    assert done.code == 0, done.err
    from slotssm.data.contents import content_hash

    assert content_hash(Path("one.h5")) == content_hash(Path("two.h5"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise ValueError('no good')", "plugin lab.py fails: ValueError: no good"),
        ("import nothing_like_it", "plugin lab.py fails: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def (", "plugin lab.py fails: SyntaxError"),
    ],
)
def test_a_plugin_that_fails_is_named(workplace, slotssm, content, message):
    Path("lab.py").write_text(content)
    refused = slotssm("train", "--preset", "tiny-oc", "--plugin", "lab.py", "--dry-run")
    assert refused.code == 2
    assert refused.error_lines[0].startswith(f"slotssm: {message}")


def test_a_plugin_that_is_not_there_is_named(workplace, slotssm):
    refused = slotssm("eval", "--plugin", "none.py")
    assert (refused.code, refused.error_lines) == (2, ["slotssm: plugin none.py is not a Python file"])


def test_an_unknown_data_set_is_named_with_the_nearest(workplace, slotssm):
    refused = slotssm("generate", "bouncin")
    assert (refused.code, refused.error_lines) == (
        2,
        ["slotssm: generator 'bouncin' is unknown; did you mean bouncing?"],
    )


def test_workers_load_generators_of_installed_packages(workplace, monkeypatch):
    _, code, _ = EXAMPLES[3]
    described = workplace / "site" / "lab_drops-1.0.dist-info"
    described.mkdir(parents=True)
    (workplace / "site" / "lab_drops.py").write_text(code)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-drops\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[slotssm.plugins]\nlab_drops = lab_drops\n")
    monkeypatch.syspath_prepend(workplace / "site")
    plugins.load_installed_plugins()
    recipe = {"recipe": {"kind": "drops"}, "num_train": 4, "num_val": 0, "num_test": 0}
    made = [Path(f"{workers}.h5") for workers in (1, 2)]
    for workers, path in enumerate(made, 1):
        generate(load(RecipeData, recipe, "test"), path, workers=workers)
    with EpisodeFile(made[0]) as one, EpisodeFile(made[1]) as two:
        assert (one.read("train", "frames") == two.read("train", "frames")).all()


def test_installed_packages_announce_plugins(workplace, slotssm, monkeypatch):
    class Point:
        name = "announced"

        def load(self):
            exec(compile(EXAMPLES[0][1], "announced", "exec"), {"__name__": "announced"})

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point()] if group == "slotssm.plugins" else [])
    setting = ("--set", "model.time_mixer.kind=lstm")
    assert slotssm("train", "--preset", "tiny-oc", *setting, "--dry-run").code == 0
