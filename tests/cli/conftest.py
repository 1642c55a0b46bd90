"""Run the command line in this process, and make tiny runs once."""

import signal
import sys
from dataclasses import dataclass

import pytest

from slotssm_cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("slotssm: ")]


@pytest.fixture
def slotssm(monkeypatch, capsys):
    """Call as `slotssm("eval", "--json")`; gives exit code, stdout and stderr."""

    def call(*arguments) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["slotssm", *map(str, arguments)])
        capsys.readouterr()
        # the program leaves signals to nobody when it ends, and this process goes on
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with pytest.raises(SystemExit) as stop:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return Outcome(stop.value.code or 0, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def lived_in(tmp_path_factory):
    """A folder in which both tiny presets were trained for a few steps."""
    from slotssm.documents import override, parse_assignments
    from slotssm.experiments.datasets import ensure_own_data, spec_of
    from slotssm.experiments.presets import preset
    from slotssm.experiments.runs import start_run
    from slotssm.training.run import RunDirectory

    folder = tmp_path_factory.mktemp("lived-in")
    few = ["train.num_steps=6", "train.checkpoint_every_steps=3", "train.log_every_steps=1"]
    for name in ("tiny-bcb", "tiny-oc"):
        config = override(preset(name), parse_assignments(few), "test")
        data = ensure_own_data(config, folder / "data")
        run = RunDirectory(folder / "runs" / f"{name}-001")
        start_run(config, spec_of(config.data), data, run, "cpu", lambda report: None)
    return folder


@pytest.fixture
def home(lived_in, monkeypatch):
    """The lived-in folder as the current one; tests leave it as it is."""
    monkeypatch.chdir(lived_in)
    return lived_in
