"""What a model is made of: time mixers, and the rows of the composition."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from slotssm.documents import Config


class MambaConfig(Config):
    """Time mixer: one Mamba (v1) block, its weights shared by all slots."""

    kind: Literal["mamba"] = "mamba"
    d_state: int = Field(16, ge=1)
    """N: state size of each inner channel."""
    d_conv: int = Field(4, ge=1)
    """Width of the causal depthwise convolution in steps."""
    expand: float = Field(2.0, gt=0)
    """Inner width E = int(expand * slot_dim)."""


class Mamba2Config(Config):
    """Time mixer: one Mamba-2 block, its weights shared by all slots."""

    kind: Literal["mamba2"] = "mamba2"
    d_state: int = Field(64, ge=1)
    """N: state size of each inner channel."""
    d_conv: int = Field(4, ge=1)
    """Width of the causal depthwise convolution in steps."""
    expand: float = Field(2.0, gt=0)
    """Inner width E = int(expand * slot_dim)."""
    headdim: int = Field(16, ge=1)
    """Channels of a head, which share one decay; divides the inner width."""
    ngroups: int = Field(1, ge=1)
    """Groups of heads that share their input and output maps; divides the number of heads."""
    chunk_size: int = Field(32, ge=1)
    """Steps that the scan takes as one matrix: a matter of speed and memory, not of the result."""


class TimeInvariantConfig(Config):
    """What S4D and S5 have in common: a diagonal complex state space model that does not depend on its input."""

    d_state: int = Field(64, ge=2, multiple_of=2)
    """N: state size of each channel (S4D) or of all together (S5), in conjugate pairs."""
    dt_min: float = Field(1e-3, gt=0)
    """Smallest initial step size; at first a state fades by exp(-dt / 2) a step."""
    dt_max: float = Field(1e-1, gt=0)
    """Largest initial step size; they are drawn log-uniformly."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min {self.dt_min:g} exceeds dt_max {self.dt_max:g}")
        return self


class S4DConfig(TimeInvariantConfig):
    """Time mixer: one S4D block, a state space model for each channel; its weights shared by all slots."""

    kind: Literal["s4d"] = "s4d"


class S5Config(TimeInvariantConfig):
    """Time mixer: one S5 block, a state space model of all channels; its weights shared by all slots."""

    kind: Literal["s5"] = "s5"


TimeMixerConfig = Annotated[MambaConfig | Mamba2Config | S4DConfig | S5Config, Field(discriminator="kind")]


class SequenceModelConfig(Config):
    """What all models have in common."""

    num_slots: int = Field(6, ge=1)
    """K: slots of every layer."""
    slot_dim: int = Field(64, ge=4)
    """D: width of a slot."""
    num_layers: int = Field(3, ge=1)
    """Layers of reader (where present), time mixer and slot mixer."""
    num_heads: int = Field(4, ge=1)
    """Heads of every attention; divides slot_dim."""
    mlp_ratio: float = Field(4.0, gt=0)
    """Hidden width of every MLP as a multiple of slot_dim."""
    layer_mlp_ratio: float | None = Field(None, gt=0)
    """The same for the layers alone, where models of one size have them wider or narrower; None is mlp_ratio."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout after attention and MLP; 0 is off."""

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        if self.slot_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide slot_dim {self.slot_dim}")
        if self.slot_dim % 4:
            raise ValueError(f"slot_dim {self.slot_dim} must be a multiple of 4 (sine-cosine positions)")
        for name in ("mlp_ratio", "layer_mlp_ratio"):
            ratio = getattr(self, name)
            if ratio is not None and int(ratio * self.slot_dim) < 1:
                raise ValueError(f"{name} must leave at least one channel of slot_dim")
        return self


class StateSpaceModelConfig(SequenceModelConfig):
    """What the state space models have in common."""

    time_mixer: TimeMixerConfig = MambaConfig()

    @field_validator("time_mixer", mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        """Fields without a kind are Mamba's, as in configurations from before there were others."""
        return {"kind": "mamba", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check_time_mixer(self) -> Self:
        mixer = self.time_mixer
        inner = int(mixer.expand * self.slot_dim) if isinstance(mixer, MambaConfig | Mamba2Config) else self.slot_dim
        if inner < 1:
            raise ValueError("time_mixer.expand must leave at least one channel of slot_dim")
        if isinstance(mixer, Mamba2Config):
            if inner % mixer.headdim:
                raise ValueError(f"time_mixer.headdim {mixer.headdim} does not divide expand * slot_dim = {inner}")
            if (heads := inner // mixer.headdim) % mixer.ngroups:
                raise ValueError(f"time_mixer.ngroups {mixer.ngroups} does not divide the {heads} heads of Mamba-2")
        return self


class OCSlotSSMConfig(StateSpaceModelConfig):
    """OC-SlotSSM: one inverted attention to the input tokens in every layer (paper, section 5.1)."""

    kind: Literal["oc-slotssm"] = "oc-slotssm"


class SAViConfig(SequenceModelConfig):
    """SAVi: slot attention corrects the slots by every frame, a Transformer block predicts them (Kipf et al. 2022)."""

    kind: Literal["savi"] = "savi"
    num_layers: int = Field(1, ge=1)
    """Transformer blocks of the predictor."""
    num_iterations: int = Field(1, ge=1)
    """Corrections by one frame, with the same weights."""


class _SlotEncoderConfig(Config):
    """Models that read their tokens through a CLS-Transformer slot encoder before the first layer."""

    num_encoder_layers: int = Field(3, ge=1)
    """Layers of the slot encoder: self-attention, cross-attention to the tokens, MLP."""


class SlotSSMConfig(StateSpaceModelConfig, _SlotEncoderConfig):
    """SlotSSM: one state a slot (paper, sections 3 and 4)."""

    kind: Literal["slotssm"] = "slotssm"


class SingleStateSSMConfig(StateSpaceModelConfig, _SlotEncoderConfig):
    """Single State SSM: the same architecture with one monolithic state (paper, section 7.1)."""

    kind: Literal["single-state-ssm"] = "single-state-ssm"
    num_slots: Literal[1] = 1
    """One CLS token, one state."""


class SplitSSMConfig(StateSpaceModelConfig, _SlotEncoderConfig):
    """Single State SSM (Split): slots of the encoder are joined for one state, then split again (section 7.1)."""

    kind: Literal["split-ssm"] = "split-ssm"


class TransformerConfig(SequenceModelConfig, _SlotEncoderConfig):
    """Transformer: causal attention over one embedding a step (paper, section 7.1)."""

    kind: Literal["transformer"] = "transformer"
    num_slots: Literal[1] = 1
    """One CLS token, one embedding a step."""


class SlotTransformerConfig(SequenceModelConfig, _SlotEncoderConfig):
    """SlotTransformer: attention over all slots of all steps so far (paper, appendix C.2)."""

    kind: Literal["slot-transformer"] = "slot-transformer"


class SlotRNNConfig(SequenceModelConfig, _SlotEncoderConfig):
    """SlotRNN: a GRU shared by all slots, and the slot mixer within the recurrence (paper, appendix C.2).

    The default is a residual variant; the paper's layer has no residual connection.
    """

    kind: Literal["slot-rnn"] = "slot-rnn"
    residual: bool = True
    """Add a layer's input to its states; false gives the states themselves, x = h, as the paper defines the layer."""


class RIMConfig(SequenceModelConfig, _SlotEncoderConfig):
    """RIM: recurrent units with weights of their own, of which few are active (Goyal et al. 2019, 1909.10893)."""

    kind: Literal["rim"] = "rim"
    num_layers: int = Field(1, ge=1)
    """Layers of recurrent units; each reads the units of the layer below."""
    num_active: int = Field(4, ge=1)
    """Units that change their state in a step."""

    @model_validator(mode="after")
    def _check_active(self) -> Self:
        if self.num_active > self.num_slots:
            raise ValueError(f"num_active {self.num_active} exceeds num_slots {self.num_slots}")
        return self


EncodedModelConfig = (
    SlotSSMConfig
    | SingleStateSSMConfig
    | SplitSSMConfig
    | TransformerConfig
    | SlotTransformerConfig
    | SlotRNNConfig
    | RIMConfig
)
"""Models with a slot encoder, which the paper's sequence experiments compare."""
ObjectModelConfig = OCSlotSSMConfig | SAViConfig
"""Models whose slots compete for the tokens, which the paper's object-centric experiments compare."""
ModelConfig = Annotated[EncodedModelConfig | ObjectModelConfig, Field(discriminator="kind")]
