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
    # `python -m slotssm` starts the command line; nothing imports it
    "slotssm.__main__": 8,
}
WALLS = {
    "filelock": {"slotssm.files"},
    "pymunk": {"generators"},
    "h5py": {"slotssm.data.episodes", "slotssm.data.hdf5", "slotssm.data.writer"},
    "isal": {"slotssm.data.layout", "slotssm.data.reader"},
    "google_crc32c": {"slotssm.data.importers.readers"},
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
