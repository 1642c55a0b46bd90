"""Small models of every kind, and what they are fed."""

import torch

from slotssm.layers import Mamba2Config, MambaConfig, S4DConfig, S5Config
from slotssm.models import (
    ModelState,
    OCSlotSSMConfig,
    RIMConfig,
    SAViConfig,
    SAViPlusPlusConfig,
    SequenceModelConfig,
    SingleStateSSMConfig,
    SlotModel,
    SlotRNNConfig,
    SlotSSMConfig,
    SlotTransformerConfig,
    SplitSSMConfig,
    StateSpaceModelConfig,
    TransformerConfig,
    build_model,
)

CONFIGS: dict[str, type[SequenceModelConfig]] = {
    "slotssm": SlotSSMConfig,
    "oc-slotssm": OCSlotSSMConfig,
    "single-state-ssm": SingleStateSSMConfig,
    "split-ssm": SplitSSMConfig,
    "transformer": TransformerConfig,
    "slot-transformer": SlotTransformerConfig,
    "slot-rnn": SlotRNNConfig,
    "rim": RIMConfig,
    "savi": SAViConfig,
    "savi++": SAViPlusPlusConfig,
}
MIXERS = {
    "mamba": MambaConfig(d_state=4, expand=1.25),
    "mamba2": Mamba2Config(d_state=4, headdim=4, ngroups=2),
    "s4d": S4DConfig(d_state=4),
    "s5": S5Config(d_state=4),
}
CORRECTING = ("savi", "savi++")
STATE_SPACE = tuple(kind for kind, config in CONFIGS.items() if issubclass(config, StateSpaceModelConfig))
TRANSFORMERS = ("transformer", "slot-transformer")
ENCODED = tuple(kind for kind in CONFIGS if kind not in ("oc-slotssm", *CORRECTING))
"""Models with a slot encoder; in the others slots compete for the tokens."""
ONE_SLOT = ("single-state-ssm", "transformer")
CASES = [(kind, mixer) for mixer in MIXERS for kind in STATE_SPACE]
CASES += [(kind, "mamba") for kind in CONFIGS if kind not in STATE_SPACE]
"""Kinds of models, and of their time mixers where they have one of those."""
STEPS, TOKENS, SLOTS, DIM = 9, 5, 3, 8


def case_name(case: tuple[str, str]) -> str:
    return "-".join(case) if case[0] in STATE_SPACE else case[0]


def slots_of(kind: str) -> int:
    return 1 if kind in ONE_SLOT else SLOTS


def config_of(kind: str, mixer: str = "mamba", **changes) -> SequenceModelConfig:
    fields = {"num_slots": slots_of(kind), "slot_dim": DIM, "num_layers": 2, "num_heads": 2, "mlp_ratio": 2.0}
    if kind in ENCODED:
        fields["num_encoder_layers"] = 2
    if kind in STATE_SPACE:
        fields["time_mixer"] = MIXERS[mixer]
    if kind == "rim":
        fields["num_active"] = SLOTS - 1
    if kind in CORRECTING:
        fields["num_iterations"] = 2
    return CONFIGS[kind](**fields | changes)


def build(kind: str, mixer: str = "mamba", **changes) -> SlotModel:
    """A small model in float64 whose parameters have all left their initial values."""
    torch.manual_seed(3)
    model = build_model(config_of(kind, mixer, **changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def random_tokens(batch: int = 2, steps: int = STEPS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, TOKENS, DIM, generator=generator, dtype=torch.float64)


def start_of(model: SlotModel) -> torch.nn.Parameter:
    """The learned vectors that tell the slots apart."""
    if model.queries is not None:
        return model.queries
    reader = model.layers[0].reader
    return getattr(reader, "encoder", reader).cls


def parts(state: ModelState) -> list[torch.Tensor]:
    """All tensors of a state."""
    return [part for layer in state.layers for part in layer]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def close_states(ours: ModelState, theirs: ModelState) -> None:
    assert ours.num_steps == theirs.num_steps
    for part, other in zip(parts(ours), parts(theirs), strict=True):
        close(part, other)
