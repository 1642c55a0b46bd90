"""From a configuration to a task with its model."""

from slotssm.config import BCBRecipe, PredictConfig, ReconstructConfig, RunConfig
from slotssm.errors import InputError
from slotssm.models import build_model
from slotssm.tasks.predict import Predict
from slotssm.tasks.recall import Recall
from slotssm.tasks.reconstruct import Reconstruct
from slotssm.tasks.task import Task


def build_task(config: RunConfig) -> Task:
    """The task that a run describes, with freshly initialised weights (from torch's global generator)."""
    model, recipe, dim = build_model(config.model), config.data.recipe, config.model.slot_dim
    if isinstance(config.task, ReconstructConfig):
        return Reconstruct(config.task, model, recipe.size_px, dim)
    if isinstance(config.task, PredictConfig):
        return Predict(config.task, model, config.model, recipe.size_px, recipe.palette)
    if not isinstance(recipe, BCBRecipe):
        raise InputError(f"task 'recall' needs data of kind 'bcb', not '{recipe.kind}'")
    return Recall(
        config.task, model, config.model, recipe.size_px, recipe.patches_per_side, recipe.palette, recipe.rule
    )
