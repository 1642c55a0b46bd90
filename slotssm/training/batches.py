"""The batches that the settings of a training ask for, phase by phase."""

from slotssm.config import TrainConfig
from slotssm.data.clips import Clips, Phase


def phases_of(train: TrainConfig) -> list[Phase]:
    """The phases of a training in order; the last one, whose settings are those of the training itself, has no end."""
    first = [Phase(phase.batch_size, _clips(train, phase.clip_len), phase.num_steps) for phase in train.phases]
    return [*first, Phase(train.batch_size, _clips(train, train.clip_len))]


def _clips(train: TrainConfig, clip_len: int) -> Clips:
    return Clips(train.clips, clip_len, train.clip_stride) if clip_len else Clips()
