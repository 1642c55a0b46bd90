"""The levels and library imports of docs/architecture.md: who may import whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# a module imports from lower levels or from its own subpackage
LEVELS = {
    "slotssm": -1,
    "slotssm.errors": -1,
    "slotssm.files": -1,
    "slotssm.ffmpeg": -1,
    "slotssm.interrupts": -1,
    "slotssm.documents": -1,
    "slotssm.compilation": -1,
    "slotssm.registry": -1,
    "slotssm.grid": -1,
    "slotssm.plugins": -1,
    "slotssm.ops": 0,
    "slotssm.config": 0,
    "slotssm.data": 1,
    "slotssm.layers": 1,
    "slotssm.models": 2,
    "slotssm.metrics": 2,
    "slotssm_zoo": 0,
    "generators": 2,
    "slotssm.tasks": 3,
    "slotssm.plotting": 3,
    "slotssm.evaluation": 4,
    "slotssm.report": 4,
    "slotssm.training": 5,
    "slotssm.experiments": 6,
    "slotssm_cli": 7,
    # `python -m slotssm` starts the command line; nothing imports it
    "slotssm.__main__": 8,
}
LIBRARY_IMPORTERS = {
    "filelock": {"slotssm.files"},
    "pymunk": {"generators"},
    "h5py": {"slotssm.data.episodes", "slotssm.data.hdf5", "slotssm.data.writer"},
    "isal": {"slotssm.data.layout", "slotssm.data.reader"},
    "psutil": {"slotssm.files", "slotssm.experiments.measurement"},
    "google_crc32c": {"slotssm.data.importers.readers"},
    "sklearn": {"slotssm.metrics", "slotssm.evaluation"},
    "typer": {"slotssm_cli"},
    "rich": {"slotssm_cli"},
    "matplotlib": {"slotssm.plotting"},
    "jinja2": {"slotssm.report"},
    "markupsafe": {"slotssm.report"},
    "imageio_ffmpeg": {"slotssm.ffmpeg", "slotssm.plotting.videos", "slotssm.experiments.measurement"},
    "imageio": {"slotssm.plotting", "slotssm.data.importers"},
    "PIL": {"slotssm.plotting", "slotssm.data.exporters.images", "slotssm.data.importers"},
    "safetensors": {"slotssm.training"},
    "submitit": {"slotssm.experiments.execution"},
    "triton": {"slotssm.ops.triton"},
    "tensorboard": {"slotssm.training.trackers"},
    "wandb": {"slotssm.training.trackers"},
}
KNOWS_GENERATORS = {"generators", "slotssm.experiments", "slotssm_cli"}
NAMELESS = {"utils", "util", "common", "helpers", "helper", "misc", "base"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("slotssm", "slotssm_cli", "slotssm_zoo", "generators"):
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


def subpackage(module: str) -> str | None:
    """The longest subpackage name that the module is in."""
    candidates = [name for name in LEVELS if module == name or module.startswith(name + ".")]
    return max(candidates, key=len, default=None)


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_imports_go_down_or_stay_in_the_subpackage(module, path):
    here = subpackage(module)
    assert here is not None, f"{module} is in no subpackage of docs/architecture.md"
    for name in imports(path):
        there = subpackage(name)
        if there is None or there == here:
            continue
        assert LEVELS[there] < LEVELS[here] or LEVELS[here] == LEVELS[there] == -1, (
            f"{module} (level {LEVELS[here]}, {here}) imports {name} (level {LEVELS[there]}, {there})"
        )
        if there == "generators":
            assert here in KNOWS_GENERATORS, f"{module} may not know the generators"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_third_parties_are_imported_where_allowed(module, path):
    for name in imports(path):
        allowed = LIBRARY_IMPORTERS.get(name.split(".")[0])
        if allowed is not None:
            assert any(module == place or module.startswith(place + ".") for place in allowed), (
                f"{module} imports {name}, which belongs to {', '.join(sorted(allowed))}"
            )


def test_the_checker_sees_a_stray_import(tmp_path):
    stray = tmp_path / "stray.py"
    stray.write_text("from slotssm.training import trainer\nimport h5py\n")
    assert imports(stray) == {"slotssm.training.trainer", "h5py"}
    assert LEVELS[subpackage("slotssm.training.trainer")] > LEVELS[subpackage("slotssm.layers.time_mixers.mamba")]


def test_every_file_is_named_by_a_noun_and_short_enough():
    for module, path in modules():
        assert module.split(".")[-1] not in NAMELESS
        assert len(path.read_text().splitlines()) <= 450, f"{path} is too long"


def test_architecture_page_lists_every_subpackage_on_its_level():
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = {
        name: int(level)
        for level, names in re.findall(r"^level +(-?\d) +(.+)$", page, re.MULTILINE)
        for name in names.split()
    }
    expected = {name.removeprefix("slotssm."): level for name, level in LEVELS.items() if name != "slotssm"}
    assert listed == expected


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def opens_text_by_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the encoding that the machine happens to have."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = [word for word in (*call.args, *(k.value for k in call.keywords)) if isinstance(word, ast.Constant)]
    binary = any(isinstance(word.value, str) and re.fullmatch(r"[rwax+]*b[rwax+]*", word.value) for word in words)
    given = any(keyword.arg == "encoding" for keyword in call.keywords)
    if name == "open" and isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") != "path":
        # tarfile.open, Image.open, os.open, ...; files are opened by `path.open`, or `file.open`
        binary |= getattr(call.func.value, "id", "") != "file"
    return name in ("read_text", "write_text", "open") and not given and not binary and not is_own_write_text(call)


def is_own_write_text(call: ast.Call) -> bool:
    """`slotssm.files.write_text` is always UTF-8."""
    return isinstance(call.func, ast.Name) and call.func.id == "write_text"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_text_files_are_utf_8_on_every_machine(module, path):
    assert [call.lineno for call in calls(path) if opens_text_by_the_locale(call)] == []


def test_the_checker_sees_text_without_an_encoding(tmp_path):
    stray = tmp_path / "stray.py"
    stray.write_text("p.read_text()\np.write_text('x')\nopen(p)\nfile.open('a')\npath.open(mode='w')\n")
    assert [opens_text_by_the_locale(call) for call in calls(stray)] == [True] * 5
    stray.write_text(
        "p.read_text(encoding='utf-8')\nopen(p, 'rb')\nfile.open('wb')\nImage.open(p)\nwrite_text(p, 'x')\n"
    )
    assert [opens_text_by_the_locale(call) for call in calls(stray)] == [False] * 5


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_nobody_syncs_the_disks_of_others(module, path):
    """`os.sync` waits for everything that all programs of a node have written."""
    assert "os.sync(" not in path.read_text(encoding="utf-8")


def test_help_is_quick_to_import():
    """`slotssm --help` must not load the heavy libraries."""
    code = (
        "import sys\nsys.argv = ['slotssm', '--help']\n"
        "from slotssm_cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "heavy = {'torch', 'h5py', 'matplotlib', 'numba', 'numpy', 'pymunk', 'sklearn', 'pydantic', 'psutil'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torch_is_not_loaded_by_the_generators():
    code = "import sys, generators.writer\nassert 'torch' not in sys.modules and 'typer' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


MOST_FILES = 14
"""Files of a folder; one with more should be split."""


def subpackages() -> list[Path]:
    return sorted({path.parent for _, path in modules()})


@pytest.mark.parametrize("folder", subpackages(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_no_folder_has_too_many_files(folder):
    files = [path for path in folder.glob("*.py") if path.stem != "__init__"]
    assert len(files) <= MOST_FILES, f"{folder} has {len(files)} files"


def test_subpackages_have_no_import_cycle():
    """The graph of imports between folders is acyclic."""
    named = dict(modules())
    homes = {module: ".".join(path.parent.relative_to(ROOT).parts) for module, path in named.items()}
    # modules directly in the package count as subpackages of one file
    homes |= {module: module for module, home in homes.items() if home == "slotssm"}
    edges: dict[str, set[str]] = {}
    for module, path in named.items():
        for name in imports(path):
            target = name if name in named else name.rpartition(".")[0]
            # a package's __init__ may re-export what its subpackages offer
            if target in named and homes[target] != homes[module] and path.stem != "__init__":
                edges.setdefault(homes[module], set()).add(homes[target])
    ahead: dict[str, set[str]] = {}

    def reachable(subpackage: str, seen: frozenset[str] = frozenset()) -> set[str]:
        assert subpackage not in seen, f"{subpackage} leads back to itself through {', '.join(sorted(seen))}"
        if subpackage not in ahead:
            ahead[subpackage] = set().union(
                *(reachable(each, seen | {subpackage}) | {each} for each in edges.get(subpackage, ()))
            )
        return ahead[subpackage]

    for subpackage in edges:
        assert subpackage not in reachable(subpackage)


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


def kinds(subpackage: str = "") -> set[str]:
    """Names of all classes that derive from a task or a model, or their configurations, except a subpackage's own."""
    from slotssm.config import ModelConfig, TaskConfig
    from slotssm.models import SlotModel
    from slotssm.tasks import Task

    roots = {"slotssm.tasks": [Task, TaskConfig], "slotssm.models": [SlotModel, ModelConfig]}
    found, left = set(), [root for place, each in roots.items() if place != subpackage for root in each]
    while left:
        derived = left.pop().__subclasses__()
        found |= {each.__name__ for each in derived}
        left += derived
    return found


def test_nothing_outside_their_subpackages_asks_which_task_or_model_it_holds():
    known = kinds()
    assert {"Recall", "RecallConfig", "SlotSequenceModel", "OCSlotSSM", "SequenceModelConfig", "SAViConfig"} <= known
    assert not kinds("slotssm.models") & {"OCSlotSSM", "SAViConfig"}
    for module, path in modules():
        asked = calls_of_isinstance(path.read_text()) & kinds(".".join(module.split(".")[:2]))
        assert not asked, f"{path} asks for {', '.join(sorted(asked))}; ask for what it offers instead"


def test_architecture_page_lists_every_file_of_ops():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Inside `ops`")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = [name for cell in cells for name in re.findall(r"`([\w/]+)`", cell)]
    folder = ROOT / "slotssm" / "ops"
    there = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py") if path.stem != "__init__"}
    assert sorted(listed) == sorted(there)


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
