"""What is installed: a wheel that works outside the repository, and libraries that need little."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ONLY_FULL = ("pymunk", "matplotlib", "PIL", "imageio", "h5py", "typer", "rich", "safetensors", "filelock", "isal")


def run(*command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An environment of its own with the built wheel; third parties are found where this one has them."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    scheme = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    site = Path(sysconfig.get_path("purelib", vars=scheme))
    # a path alone: the hooks of editable installations there are not run
    (site / "third_parties.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = Path(sysconfig.get_path("scripts", vars=scheme)) / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    return python.parent


@pytest.mark.slow
def test_the_wheel_runs_the_quick_start_outside_the_repository(installed, tmp_path):
    where = run(installed / "python", "-c", "import slotssm; print(slotssm.__file__)", cwd=tmp_path).stdout.strip()
    assert not Path(where).is_relative_to(ROOT)
    slotssm = installed / "slotssm"
    assert run(slotssm, "--version", cwd=tmp_path).stdout == f"slotssm {version()}\n"
    counts = ("--train", "8", "--val", "2", "--test", "2")
    small = ("--objects", "2", "--size", "16", "--frames", "6", "--radius", "2.0-3.0")
    run(slotssm, "generate", "bouncing", *small, *counts, cwd=tmp_path)
    (data,) = (tmp_path / "data").glob("*.h5")
    few = ("--set", "train.num_steps=2", "--set", "train.batch_size=4")
    run(slotssm, "train", "--preset", "tiny-oc", "--data", data, *few, "--out", "run", cwd=tmp_path)
    run(slotssm, "eval", "run", "--metric", "fg-ari,miou", cwd=tmp_path)
    run(slotssm, "visualize", "run", "--episodes", "0", cwd=tmp_path)
    assert (tmp_path / "run" / "figures" / "test.gif").stat().st_size > 0
    run(slotssm, "report", "run", "--episodes", "1", cwd=tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 0


@pytest.mark.slow
def test_the_wheel_is_typed_in_all_packages(installed, tmp_path):
    code = (
        "import slotssm, slotssm_cli, slotssm_zoo, generators, pathlib as p\n"
        "for each in (slotssm, slotssm_cli, slotssm_zoo, generators):\n"
        "    assert (p.Path(each.__file__).parent / 'py.typed').exists(), each\n"
    )
    run(installed / "python", "-c", code, cwd=tmp_path)


def version() -> str:
    from slotssm import __version__

    return __version__


def test_the_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version()}\n" in citation
    assert "version" in PROJECT["dynamic"]


@pytest.mark.parametrize("room", ["ops", "layers", "models", "metrics"])
def test_libraries_need_neither_physics_nor_plotting(room):
    code = (
        f"import sys\nfor name in {ONLY_FULL}:\n    sys.modules[name] = None\n"
        f"import slotssm.{room}\n"
        "import torch\n"
        "if 'layers' in sys.argv:\n    from slotssm.layers import Mamba\n    Mamba(8)(torch.zeros(1, 3, 8))\n"
    )
    run(sys.executable, "-c", code, room, cwd=ROOT)


def test_without_the_extra_the_command_line_says_what_to_install():
    for missing in ("typer", "rich", "h5py"):
        command = ["slotssm", "-h" if missing == "typer" else "presets"]
        code = (
            f"import sys\nsys.modules[{missing!r}] = None\nsys.argv = {command}\n"
            "from slotssm_cli.main import main\nmain()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"slotssm: the package {missing} is missing; pip install 'slotssm[full]' brings what the command line needs"
        ]


def test_everything_that_is_imported_is_declared():
    """Third parties of the packages are among the dependencies or the extras that ship."""
    import ast

    names = {"PIL": "pillow", "sklearn": "scikit-learn"}
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["full"]]
    for extra in ("cluster", "cuda", "tensorboard", "triton", "wandb"):
        declared += PROJECT["optional-dependencies"][extra]
    known = {line.split(">")[0].split("[")[0].split(";")[0].strip() for line in declared}
    own = {"slotssm", "slotssm_cli", "slotssm_zoo", "generators"} | set(sys.stdlib_module_names)
    for package in ("slotssm", "slotssm_cli", "slotssm_zoo", "generators"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                found += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                for name in {each.split(".")[0] for each in found} - own:
                    assert names.get(name, name.replace("_", "-")) in known, f"{path} imports {name}"


@pytest.mark.parametrize("module", ["slotssm.training.trainer", "slotssm.evaluation"])
def test_what_takes_long_to_load_is_loaded_by_those_who_use_it(module):
    late = {"torch._dynamo", "sympy", "sklearn", "pandas", "scipy.stats", "scipy.optimize", "matplotlib"}
    code = f"import sys, {module}; print(sorted({late} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
