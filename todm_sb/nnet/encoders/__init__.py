"""Encoders: what may be asked of one, those there are, and how to add another."""

from todm_sb.nnet.encoders.conformer import ConformerEncoder
from todm_sb.nnet.encoders.mhssm import MHSSMEncoder
from todm_sb.nnet.encoders.protocol import (
    DualMode,
    Encoder,
    OnnxForm,
    OnnxLayers,
    Streaming,
    causal_form,
    check_space,
    onnx_form,
    streaming,
)
from todm_sb.nnet.encoders.registry import KINDS, build_encoder, check_encoder, register
from todm_sb.nnet.encoders.stack import ElasticLayer, LayerStack, StackedEncoder

__all__ = [
    "KINDS",
    "ConformerEncoder",
    "DualMode",
    "ElasticLayer",
    "Encoder",
    "LayerStack",
    "MHSSMEncoder",
    "OnnxForm",
    "OnnxLayers",
    "StackedEncoder",
    "Streaming",
    "build_encoder",
    "causal_form",
    "check_encoder",
    "check_space",
    "onnx_form",
    "register",
    "streaming",
]
