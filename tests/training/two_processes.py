"""What two processes of a launcher do together; run by torchrun, writes what each of them saw."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from slotssm.config import RunConfig
from slotssm.errors import InputError, SlotSSMError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.runs import resume_run, start_run
from slotssm.training import trainer as trainer_module
from slotssm.training.processes import Processes, joined
from slotssm.training.run import RunDirectory


def averages(processes: Processes) -> list:
    """Gradients of both, of one, and of none, after they are averaged."""
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 2.0]) * (processes.rank + 1)
    if processes.rank == 1:
        parameters[1].grad = torch.tensor([4.0, 8.0])
    processes.average_gradients(parameters)
    return [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]


def signals(processes: Processes) -> list:
    """A signal of the second process alone, and none."""
    return [processes.agreed_signal("SIGTERM" if processes.rank else ""), processes.agreed_signal("")]


def failure(processes: Processes) -> list:
    """The error of a function that fails in the second process only."""

    def work() -> int:
        if processes.rank:
            raise InputError("the second has no file")
        return 1

    try:
        processes.together(work)
    except SlotSSMError as error:
        return [type(error).__name__, str(error), error.exit_code, error.is_told]
    return []


def order(processes: Processes) -> list:
    """Results of functions that one process calls for all, or before the others."""
    first = processes.from_first(lambda: f"from {processes.rank}")
    return [first, processes.first_before_others(lambda: processes.rank), processes.gather(processes.rank)]


def train(processes: Processes, folder: Path, name: str, on_step=lambda report: None) -> list:
    """Train a run together; returns the error that ends it."""
    config = RunConfig.model_validate_json((folder / f"{name}.json").read_text())
    run, data = RunDirectory(folder / name), folder / "data.h5"
    try:
        if run.record.exists():
            resume_run(run, "cpu", on_step, data, processes)
        else:
            start_run(config, spec_of(config.data), data, run, "cpu", on_step, processes=processes)
    except SlotSSMError as error:
        return [type(error).__name__, str(error), error.exit_code]
    return []


def stopped(processes: Processes, folder: Path) -> list:
    """A signal arrives in the second process only."""

    def stop(report) -> None:
        if processes.rank == 1 and report.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    return train(processes, folder, "stopped", stop)


def infinite(processes: Processes, folder: Path) -> list:
    """The loss of the second process is infinite at one step, while its gradient is finite."""
    original = trainer_module.Trainer._begin

    def begin(self, step: int) -> None:
        original(self, step)
        is_bad = processes.rank == 1 and step == 3
        self.loss = (lambda batch: spoiled(self.task(batch))) if is_bad else self.task

    def spoiled(result):
        loss, extra = result
        return loss + torch.inf, extra

    trainer_module.Trainer._begin = begin
    try:
        return train(processes, folder, "infinite")
    finally:
        trainer_module.Trainer._begin = original


def main() -> None:
    folder = Path(sys.argv[1])
    with joined("cpu") as processes:
        seen = {
            "averages": averages(processes),
            "signals": signals(processes),
            "failure": failure(processes),
            "order": order(processes),
            "whole": train(processes, folder, "whole"),
            "stopped": stopped(processes, folder),
            "continued": train(processes, folder, "continued"),
            "early": [*train(processes, folder, "early"), *train(processes, folder, "early")],
            "infinite": infinite(processes, folder),
        }
        (folder / f"seen-{processes.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
