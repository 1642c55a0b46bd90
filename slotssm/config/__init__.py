"""Typed configuration: what a data set, a model, a task and a training run are made of.

Order of precedence: preset < TOML file < `key.path=value`. Every value that a run depends on is here, so
the saved configuration re-runs as it is.
"""

from slotssm.config.models import (
    EncodedModelConfig,
    Mamba2Config,
    MambaConfig,
    ModelConfig,
    ObjectModelConfig,
    OCSlotSSMConfig,
    RIMConfig,
    S4DConfig,
    S5Config,
    SAViConfig,
    SequenceModelConfig,
    SingleStateSSMConfig,
    SlotRNNConfig,
    SlotSSMConfig,
    SlotTransformerConfig,
    SplitSSMConfig,
    StateSpaceModelConfig,
    TimeMixerConfig,
    TransformerConfig,
)
from slotssm.config.recipes import (
    MAX_COVERAGE,
    MIN_SPEED_PX_PER_FRAME,
    PAINTS,
    RGB,
    BCBRecipe,
    BouncingRecipe,
    DataConfig,
    PaintName,
    Recipe,
    ShapeName,
)
from slotssm.config.runs import RunConfig, TrainConfig
from slotssm.config.tasks import PredictConfig, RecallConfig, ReconstructConfig, TaskConfig

__all__ = [
    "MAX_COVERAGE",
    "MIN_SPEED_PX_PER_FRAME",
    "PAINTS",
    "RGB",
    "BCBRecipe",
    "BouncingRecipe",
    "DataConfig",
    "EncodedModelConfig",
    "Mamba2Config",
    "MambaConfig",
    "ModelConfig",
    "OCSlotSSMConfig",
    "ObjectModelConfig",
    "PaintName",
    "PredictConfig",
    "RIMConfig",
    "RecallConfig",
    "Recipe",
    "ReconstructConfig",
    "RunConfig",
    "S4DConfig",
    "S5Config",
    "SAViConfig",
    "SequenceModelConfig",
    "ShapeName",
    "SingleStateSSMConfig",
    "SlotRNNConfig",
    "SlotSSMConfig",
    "SlotTransformerConfig",
    "SplitSSMConfig",
    "StateSpaceModelConfig",
    "TaskConfig",
    "TimeMixerConfig",
    "TrainConfig",
    "TransformerConfig",
]
