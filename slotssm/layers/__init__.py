"""Layers with plain keyword arguments: time mixers, attention, slot encoder, slot mixer, encoders, decoders."""

from slotssm.layers.attention import Attention, InvertedAttention, MLPBlock, QueryBlock
from slotssm.layers.canvases import Canvas, ColorCanvas, ImageCanvas
from slotssm.layers.decoders import (
    ConvolutionPainter,
    PieceDecoder,
    PiecePainter,
    SpatialBroadcastDecoder,
)
from slotssm.layers.encoders import CNNEncoder, PieceTokenizer, ResidualBlock, ResidualEncoder
from slotssm.layers.heads import ClassHead
from slotssm.layers.parameters import count_unused_parameters, decayed_parameters
from slotssm.layers.reader import Reader
from slotssm.layers.slot_attention import SlotAttention
from slotssm.layers.slots import JoiningEncoder, SlotEncoder, SlotMixer, SlotSplitter
from slotssm.layers.time_mixers.causal_attention import CausalSlotAttention, KeyValueState
from slotssm.layers.time_mixers.interface import JointTimeMixer, TimeMixer, TimeMixerState
from slotssm.layers.time_mixers.mamba import Mamba, MambaConfig, MambaState
from slotssm.layers.time_mixers.mamba2 import Mamba2, Mamba2Config, Mamba2State
from slotssm.layers.time_mixers.rim import RIM, RIMState
from slotssm.layers.time_mixers.s4d import S4D, S4DConfig, S4DState
from slotssm.layers.time_mixers.s5 import S5, S5Config, S5State
from slotssm.layers.time_mixers.slot_rnn import SlotGRU, SlotGRUState

__all__ = [
    "RIM",
    "S4D",
    "S5",
    "Attention",
    "CNNEncoder",
    "Canvas",
    "CausalSlotAttention",
    "ClassHead",
    "ColorCanvas",
    "ConvolutionPainter",
    "ImageCanvas",
    "InvertedAttention",
    "JoiningEncoder",
    "JointTimeMixer",
    "KeyValueState",
    "MLPBlock",
    "Mamba",
    "Mamba2",
    "Mamba2Config",
    "Mamba2State",
    "MambaConfig",
    "MambaState",
    "PieceDecoder",
    "PiecePainter",
    "PieceTokenizer",
    "QueryBlock",
    "RIMState",
    "Reader",
    "ResidualBlock",
    "ResidualEncoder",
    "S4DConfig",
    "S4DState",
    "S5Config",
    "S5State",
    "SlotAttention",
    "SlotEncoder",
    "SlotGRU",
    "SlotGRUState",
    "SlotMixer",
    "SlotSplitter",
    "SpatialBroadcastDecoder",
    "TimeMixer",
    "TimeMixerState",
    "count_unused_parameters",
    "decayed_parameters",
]
