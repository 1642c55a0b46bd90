"""Tiny data sets and runs; the data are made once."""

from pathlib import Path

import pytest

from generators.writer import generate
from slotssm.documents import override, parse_assignments
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.training.checkpoint import Description
from slotssm.training.run import RunDirectory


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """The data of each preset, made when they are first asked for."""
    folder = tmp_path_factory.mktemp("data")

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = folder / f"{name}.h5"
            generate(preset(name).data, self[name], workers=1)
            return self[name]

    return Made()


@pytest.fixture
def tiny_run(tmp_path, tiny_data):
    """A function that makes a run directory with a configuration changed by `assignments`."""

    def make(name="tiny-oc", *assignments, folder="run"):
        config = override(preset(name), parse_assignments(assignments), "test")
        run = RunDirectory(tmp_path / folder)
        run.create(Description(config, spec_of(config.data)), tiny_data[name], "fingerprint", "cpu")
        return config, tiny_data[name], run

    return make
