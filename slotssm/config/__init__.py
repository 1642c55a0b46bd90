"""Typed configuration: what a data set, a model, a task and a training run are made of.

Order of precedence: preset < TOML file < `key.path=value`. Every value that a run depends on is here, so
the saved configuration re-runs as it is. Configurations of time mixers, models, tasks and recipes stand beside their
code and are found through `slotssm.registry`.
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
from slotssm.config.runs import InitialConfig, RunConfig, TrainConfig

__all__ = [
    "AnyData",
    "AnyModel",
    "AnyRecipe",
    "AnyTask",
    "AnyTimeMixer",
    "DataConfig",
    "FileData",
    "InitialConfig",
    "ModelConfig",
    "Recipe",
    "RecipeData",
    "RunConfig",
    "TaskConfig",
    "TimeMixerConfig",
    "TrainConfig",
]
