"""Compiled functions run, and give the same numbers, whatever becomes of their cache on disk."""

import errno
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core import config
from numba.core.caching import IndexDataCacheFile
from numba.core.registry import cpu_target

from slotssm import compilation

ROOT = Path(__file__).parent.parent
SOURCE = """
from slotssm.compilation import cached_njit


@cached_njit(KEY)
def double(x):
    return 2 * x


@cached_njit()
def half(x):
    return x / 2
"""


@pytest.fixture(autouse=True)
def _not_warned(monkeypatch):
    # set and not only deleted, so that it is also removed after the test
    monkeypatch.setenv(compilation._WARNED, "")


@pytest.fixture
def load(tmp_path):
    """Imports a module with compiled functions anew, as another process would."""

    def load(key=()):
        path = tmp_path / "functions.py"
        source = SOURCE.replace("KEY", repr(key))
        # an older numba takes any file that was written again for a new version
        if not path.exists() or path.read_text() != source:
            path.write_text(source)
        spec = importlib.util.spec_from_file_location("functions", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def hits(function) -> int:
    return sum(function.stats.cache_hits.values())


def cache_files(folder, pattern="*.nb?"):
    return sorted((folder / "__pycache__").glob(pattern))


# --- a cache that works -----------------------------------------------------------------------------------


def test_a_function_is_compiled_once_for_all_processes(load, caplog):
    first, second = load(), load()
    assert (first.double(3), hits(first.double)) == (6, 0)
    assert (second.double(3), hits(second.double)) == (6, 1)
    assert not caplog.records


def test_a_function_is_compiled_anew_when_what_it_depends_on_changes(load):
    load("old").double(3)
    other = load("new")
    assert (other.double(3), hits(other.double)) == (6, 0)
    again = load("new")
    assert (again.double(3), hits(again.double)) == (6, 1)


def test_a_function_is_compiled_anew_when_another_file_of_its_folder_changes(tmp_path):
    # its functions may be compiled into this one
    (tmp_path / "callers.py").write_text(
        "from callees import step\nfrom slotssm.compilation import cached_njit\n\n\n"
        "@cached_njit()\ndef twice(x):\n    return step(step(x))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    found = []
    for width in (1, 10):
        (tmp_path / "callees.py").write_text(
            f"from slotssm.compilation import cached_njit\n\n\n@cached_njit()\ndef step(x):\n    return x + {width}\n"
        )
        command = [sys.executable, "-c", "from callers import twice; print(twice(0))"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found.append(int(done.stdout))
    assert found == [2, 20]


def test_processors_share_a_folder_but_no_file(load, tmp_path, monkeypatch):
    load().double(3)
    ours = cache_files(tmp_path)
    name, features = compilation.target_processor()
    for other in (("another", features), (name, "+another")):
        monkeypatch.setattr(compilation, "target_processor", lambda other=other: other)
        function = load().double
        assert (function(3), hits(function)) == (6, 0)
    assert len(ours) == 2
    assert len(cache_files(tmp_path)) == 6


def test_the_index_distinguishes_processors_as_well(load, monkeypatch):
    function, codegen = load().double, cpu_target.target_context.codegen()
    ours = function._cache._index_key((numba.int64,), codegen)
    monkeypatch.setattr(config, "CPU_NAME", "another")
    assert function._cache._index_key((numba.int64,), codegen) != ours
    monkeypatch.undo()
    assert function._cache._index_key((numba.int64,), codegen) == ours
    monkeypatch.setattr(codegen, "_tm_features", "+another")
    assert function._cache._index_key((numba.int64,), codegen) != ours


def test_the_processor_is_the_one_that_numba_compiles_for():
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    assert compilation.target_processor() == (name, features)


def test_without_just_in_time_compilation_a_function_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(config, "DISABLE_JIT", 1)

    def function(x):
        return x

    assert compilation.cached_njit()(function) is function


def test_the_packages_cache_in_no_other_way():
    sources = [path for package in ("slotssm", "generators") for path in (ROOT / package).rglob("*.py")]
    assert len(sources) > 50
    direct = [str(path) for path in sources if re.search(r"\bn?jit\([^)]*\bcache=True", path.read_text())]
    assert not direct


# --- a cache that fails -----------------------------------------------------------------------------------


def test_a_full_disk_costs_the_cache_and_one_warning(load, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    module = load()
    assert (module.double(3), module.half(3), module.double(0.5)) == (6, 1.5, 1)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("slotssm", logging.WARNING)
    assert "No space left on device" in record.getMessage()
    assert "NUMBA_CACHE_DIR" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("pattern", ["double*.nbi", "double*.nbc", "*.nb?"])
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_cache_is_replaced(load, tmp_path, caplog, pattern, content):
    load().double(3)
    for path in cache_files(tmp_path, f"functions.{pattern}" if pattern[0] == "d" else pattern):
        # None: as after a crash, half of the file is there
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    function = load().double
    assert (function(3), hits(function)) == (6, 0)
    assert len(caplog.records) == 1
    function = load().double
    assert (function(3), hits(function)) == (6, 1)


def test_code_for_other_types_is_not_run(load, tmp_path):
    # what processes may leave behind that compiled different signatures at once
    function = load().double
    function(3)
    function(0.5)
    one, other = cache_files(tmp_path, "*.nbc")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    function = load().double
    assert (function(3), function(0.5)) == (6, 1.0)


def test_a_folder_that_cannot_be_written_costs_the_cache_and_one_warning(load, tmp_path, monkeypatch, caplog):
    below_a_file = _nowhere_to_write(tmp_path)
    monkeypatch.setattr(config, "CACHE_DIR", below_a_file["NUMBA_CACHE_DIR"])
    for name, value in below_a_file.items():
        monkeypatch.setenv(name, value)
    module = load()
    assert (module.double(3), module.half(3)) == (6, 1.5)
    assert len(caplog.records) == 1
    assert "no locator available" in caplog.text
    # a worker process inherits the environment
    assert compilation._WARNED in os.environ
    command = [sys.executable, "-c", "from functions import double; print(double(3))"]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("6\n", "")


def test_without_a_home_no_folder_appears_in_the_current_one(load, workplace, monkeypatch, caplog):
    (workplace / "__pycache__").write_text("not a folder")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert load().double(3) == 6
    assert {path.name for path in workplace.iterdir()} == {"__pycache__", "functions.py"}
    assert len(caplog.records) == 1


def _nowhere_to_write(folder: Path) -> dict[str, str]:
    """Settings under which numba finds no folder: all of them would lie below regular files."""
    (folder / "file").write_text("not a folder")
    pycache = folder / "__pycache__"
    shutil.rmtree(pycache, ignore_errors=True)
    pycache.write_text("not a folder")
    return {name: str(folder / "file" / name) for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")}


EVERYTHING_COMPILED = """
import numpy as np
import torch
from generators import physics, rasterizer, textures
from slotssm.metrics import fg_ari
from slotssm.ops.cpu.convolution_operator import convolve

masks = np.array([[[[0, 1], [1, 2]]]], np.uint8)
assert fg_ari(masks, masks).mean == 1
assert convolve(*(torch.ones(s) for s in ((1, 3, 2), (1, 4, 2), (2, 4), (2,)))).shape == (1, 3, 2)
print("done")
"""


@pytest.mark.slow
def test_a_read_only_installation_without_a_home_works(tmp_path, environment):
    ignore = shutil.ignore_patterns("__pycache__", "*.nb?", "*.pyc")
    for package in ("slotssm", "generators"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
        for folder in [path for path in (tmp_path / package).rglob("*") if path.is_dir()] + [tmp_path / package]:
            # in place of folders without the permission to write, which a superuser has
            (folder / "__pycache__").write_text("not a folder")
    environment = {name: value for name, value in environment.items() if name != compilation._WARNED}
    settings = {**environment, **_nowhere_to_write(tmp_path), "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", EVERYTHING_COMPILED]
    done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "done\n", done.stderr
    assert done.stderr.count("compiled functions cannot be cached on disk") == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
