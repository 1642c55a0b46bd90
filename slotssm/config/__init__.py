"""Typed configuration of data sets, models, tasks and training runs.

Order of precedence: preset < TOML file < `key.path=value`. Every value that a run depends on is part of its
configuration, so a saved configuration can be run again as it is. Configurations of time mixers, models, tasks and
recipes are defined next to their code and found through `slotssm.registry`.
"""

from slotssm.config.data import AnyData, DataConfig, FileData, RecipeData
from slotssm.config.entries import (
    AnyModel,
    AnyRecipe,
    AnyTask,
    AnyTimeMixer,
    ModelConfig,
    Recipe,
    TaskConfig,
    TimeMixerConfig,
)
from slotssm.config.runs import TRACKERS, InitialConfig, PhaseConfig, RunConfig, TrainConfig

__all__ = [
    "TRACKERS",
    "AnyData",
    "AnyModel",
    "AnyRecipe",
    "AnyTask",
    "AnyTimeMixer",
    "DataConfig",
    "FileData",
    "InitialConfig",
    "ModelConfig",
    "PhaseConfig",
    "Recipe",
    "RecipeData",
    "RunConfig",
    "TaskConfig",
    "TimeMixerConfig",
    "TrainConfig",
]
