"""Benchmarks still run, on next to nothing."""

import json
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SMALL = {
    "attention": "--lengths 8 --repeats 1",
    "feeding": "--episodes 8 --steps 1 --repeats 1 --channels 2",
    "generate": "--episodes 4 --repeats 1",
    "probe": "--videos 12 --frames 2 --objects 2 --dim 4",
    "score": "--videos 3 --frames 12 --size 16 --loop-videos 2 --repeats 1",
}


# compiling takes most of the first one's time
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "attention" else n for n in SMALL])
def test_a_benchmark_prints_what_it_measured(monkeypatch, capsys, name):
    path = FOLDER / f"{name}.py"
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [str(path), *SMALL[name].split(), "--json"])
    runpy.run_path(str(path), run_name="__main__")
    assert json.loads(capsys.readouterr().out)
