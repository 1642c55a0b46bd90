"""Layers with plain keyword arguments: time mixers, attention, slot encoder, slot mixer, encoders, decoders."""

from slotssm.layers.attention import Attention, InvertedAttention, MLPBlock, QueryBlock
from slotssm.layers.decoders import PieceDecoder, SpatialBroadcastDecoder, convolution_painter, piece_painter
from slotssm.layers.encoders import CNNEncoder, PieceTokenizer
from slotssm.layers.mamba import Mamba, MambaState
from slotssm.layers.slots import SlotEncoder, SlotMixer

__all__ = [
    "Attention",
    "CNNEncoder",
    "InvertedAttention",
    "MLPBlock",
    "Mamba",
    "MambaState",
    "PieceDecoder",
    "PieceTokenizer",
    "QueryBlock",
    "SlotEncoder",
    "SlotMixer",
    "SpatialBroadcastDecoder",
    "convolution_painter",
    "piece_painter",
]
