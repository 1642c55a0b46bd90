"""The floors and walls of docs/architecture.md: who may import whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# the deeper the room, the more may lean on it; a module imports from lower floors or from its own room
FLOORS = {
    "slotssm": -1,
    "slotssm.errors": -1,
    "slotssm.files": -1,
    "slotssm.interrupts": -1,
    "slotssm.documents": -1,
    "slotssm.ops": 0,
    "slotssm.data": 0,
    "slotssm.config": 0,
    "slotssm.layers": 1,
    "slotssm.experiments.presets": 1,
    "slotssm.models": 2,
    "slotssm.metrics": 2,
    "generators": 2,
    "slotssm.tasks": 3,
    "slotssm.plotting": 3,
    "slotssm.evaluation": 4,
    "slotssm.training": 5,
    "slotssm.experiments": 6,
    "slotssm_cli": 7,
}
WALLS = {
    "pymunk": {"generators"},
    "h5py": {"slotssm.data.episodes", "slotssm.data.importers"},
    "isal": {"slotssm.data.episodes"},
    "sklearn": {"slotssm.metrics", "slotssm.evaluation"},
    "typer": {"slotssm_cli"},
    "rich": {"slotssm_cli"},
    "matplotlib": {"slotssm.plotting"},
    "imageio": {"slotssm.plotting", "slotssm.data.importers"},
    "PIL": {"slotssm.plotting", "slotssm.data.exporters.images", "slotssm.data.importers"},
    "safetensors": {"slotssm.training"},
}
KNOWS_GENERATORS = {"generators", "slotssm.experiments", "slotssm_cli"}
NAMELESS = {"utils", "util", "common", "helpers", "helper", "misc", "base"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("slotssm", "slotssm_cli", "generators"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(part for part in parts if part != "__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            # `from slotssm.data import episodes` may name a module
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str | None:
    """The longest room name that the module is in."""
    candidates = [name for name in FLOORS if module == name or module.startswith(name + ".")]
    return max(candidates, key=len, default=None)


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_imports_go_down_or_stay_in_the_room(module, path):
    here = room(module)
    assert here is not None, f"{module} is in no room of docs/architecture.md"
    for name in imports(path):
        there = room(name)
        if there is None or there == here:
            continue
        assert FLOORS[there] < FLOORS[here] or FLOORS[here] == FLOORS[there] == -1, (
            f"{module} (floor {FLOORS[here]}, {here}) imports {name} (floor {FLOORS[there]}, {there})"
        )
        if there == "generators":
            assert here in KNOWS_GENERATORS, f"{module} may not know the generators"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_third_parties_stay_behind_their_walls(module, path):
    for name in imports(path):
        allowed = WALLS.get(name.split(".")[0])
        if allowed is not None:
            assert any(module == place or module.startswith(place + ".") for place in allowed), (
                f"{module} imports {name}, which belongs to {', '.join(sorted(allowed))}"
            )


def test_the_checker_sees_a_stray_import(tmp_path):
    stray = tmp_path / "stray.py"
    stray.write_text("from slotssm.training import trainer\nimport h5py\n")
    assert imports(stray) == {"slotssm.training.trainer", "h5py"}
    assert FLOORS[room("slotssm.training.trainer")] > FLOORS[room("slotssm.layers.mamba")]


def test_every_file_is_named_by_a_noun_and_short_enough():
    for module, path in modules():
        assert module.split(".")[-1] not in NAMELESS
        assert len(path.read_text().splitlines()) <= 450, f"{path} is too long for one room"


def test_architecture_page_lists_every_room_on_its_floor():
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = {
        name: int(floor)
        for floor, names in re.findall(r"^floor +(-?\d) +(.+)$", page, re.MULTILINE)
        for name in names.split()
    }
    expected = {name.removeprefix("slotssm."): floor for name, floor in FLOORS.items() if name != "slotssm"}
    assert listed == expected


def test_help_is_quick_to_import():
    """`slotssm --help` must not load the heavy libraries."""
    code = (
        "import sys\nsys.argv = ['slotssm', '--help']\n"
        "from slotssm_cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "heavy = {'torch', 'h5py', 'matplotlib', 'numba', 'numpy', 'pymunk', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torch_is_not_loaded_by_the_generators():
    code = "import sys, generators.writer\nassert 'torch' not in sys.modules and 'typer' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def calls_of_isinstance(source: str) -> set[str]:
    """Names of the classes by which `isinstance`, or a pattern of `match`, tells kinds of objects apart."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            classes: ast.AST = node.args[1]
        elif isinstance(node, ast.MatchClass):
            classes = node.cls
        else:
            continue
        named |= {part.id for part in ast.walk(classes) if isinstance(part, ast.Name)}
        named |= {part.attr for part in ast.walk(classes) if isinstance(part, ast.Attribute)}
    return named


def kinds() -> set[str]:
    """Names of all classes that derive from a task, a model or their configurations."""
    from slotssm.config import ModelConfig, TaskConfig
    from slotssm.models import SlotModel
    from slotssm.tasks import Task

    found, left = set(), [Task, SlotModel, TaskConfig, ModelConfig]
    while left:
        derived = left.pop().__subclasses__()
        found |= {each.__name__ for each in derived}
        left += derived
    return found


def test_nothing_outside_their_rooms_asks_which_task_or_model_it_holds():
    known = kinds()
    assert {"Recall", "RecallConfig", "SlotSequenceModel", "OCSlotSSM", "SequenceModelConfig", "SAViConfig"} <= known
    for module, path in modules():
        if not module.startswith(("slotssm.tasks", "slotssm.models")):
            asked = calls_of_isinstance(path.read_text()) & known
            assert not asked, f"{path} asks for {', '.join(sorted(asked))}; ask for what it offers instead"


def test_the_checker_sees_a_question_for_a_kind():
    source = (
        "isinstance(task, Recall | tasks.Predict)\nisinstance(x, (int, SAVi))\nassert isinstance(y, list)\n"
        "match z:\n    case SlotSSMConfig(num_slots=1):\n        pass\n"
    )
    assert calls_of_isinstance(source) & kinds() == {"Recall", "Predict", "SAVi", "SlotSSMConfig"}
    assert not calls_of_isinstance("build(Recall, isinstance(x, int))") & kinds()


def flags_in(source: str) -> list[tuple[int, str]]:
    """Lines and flags of a command line in the string literals of a module, docstrings among them."""
    return sorted(
        (node.lineno, flag)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for flag in re.findall("--[a-z][a-z-]*", node.value)
    )


@pytest.mark.parametrize(
    ("module", "path"),
    [each for each in modules() if each[0].split(".")[0] in ("slotssm", "generators")],
    ids=lambda value: str(value),
)
def test_only_the_command_line_spells_flags(module, path):
    found = flags_in(path.read_text())
    assert not found, f"{module} spells flags; name the argument in backticks: {found}"


def test_the_checker_sees_flags():
    source = '"""Pass `--force`."""\nraise InputError(f"{path} exists; see --out or --dry-run")\nx = a --b\n'
    assert flags_in(source) == [(1, "--force"), (2, "--dry-run"), (2, "--out")]
