"""All experiments of the paper, and the choice of one."""

from slotssm.documents import nearest
from slotssm.errors import InputError
from slotssm.experiments.reproductions.experiment import Choice, Experiment
from slotssm.experiments.reproductions.studies.depth import DepthPrediction
from slotssm.experiments.reproductions.studies.efficiency import Efficiency
from slotssm.experiments.reproductions.studies.long_context import LongContext
from slotssm.experiments.reproductions.studies.modularity import Modularity
from slotssm.experiments.reproductions.studies.object_centric import ObjectCentric
from slotssm.experiments.reproductions.studies.slot_ownership import SlotOwnership
from slotssm.experiments.reproductions.studies.snitch import Snitch
from slotssm.experiments.reproductions.studies.video_prediction import VideoPrediction

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        LongContext(),
        VideoPrediction(),
        ObjectCentric(),
        SlotOwnership(),
        Snitch(),
        DepthPrediction(),
        Modularity(),
        Efficiency(),
    )
}
"""Experiments by name."""


def experiment_of(name: str, choice: Choice) -> Experiment:
    """The experiment of that name, after checking the selection."""
    if name not in EXPERIMENTS:
        raise InputError(f"experiment {name} is unknown; {nearest(name, EXPERIMENTS)}")
    EXPERIMENTS[name].check(choice)
    return EXPERIMENTS[name]
