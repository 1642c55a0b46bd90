"""The task of a run on the data that its recipe describes."""

from slotssm.config import RunConfig
from slotssm.experiments.datasets import spec_of
from slotssm.tasks import Task, build_task


def own_task(run: RunConfig) -> Task:
    """Built with fresh weights, without making an episode."""
    return build_task(run, spec_of(run.data))
