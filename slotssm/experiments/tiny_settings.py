"""What the presets that run in seconds share."""

from slotssm.config import TrainConfig
from slotssm.layers import MambaConfig
from slotssm.models import SlotSSMConfig

TINY_SLOTSSM = SlotSSMConfig(
    num_slots=3,
    slot_dim=16,
    num_layers=2,
    num_heads=2,
    num_encoder_layers=1,
    time_mixer=MambaConfig(d_state=8, expand=1.25),
)
TINY_TRAIN = TrainConfig(
    num_steps=60,
    batch_size=8,
    warmup_steps=5,
    log_every_steps=5,
    checkpoint_every_steps=20,
    eval_every_steps=30,
)
