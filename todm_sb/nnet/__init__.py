"""Networks: MH-SSM encoder with elastic depth and width, predictors and the joiner."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.nnet.elastic import ElasticFFN
    from todm_sb.nnet.encoders import Encoder, LayerStack, StackedEncoder, build_encoder, register
    from todm_sb.nnet.features import SpeechFeatures, make_fbank
    from todm_sb.nnet.joiner import Joiner
    from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor
    from todm_sb.nnet.transducer import Transducer

__all__ = [
    "ElasticFFN",
    "Encoder",
    "Joiner",
    "LSTMPredictor",
    "LayerStack",
    "SpeechFeatures",
    "StackedEncoder",
    "StatelessPredictor",
    "Transducer",
    "build_encoder",
    "make_fbank",
    "register",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.nnet.elastic": ["ElasticFFN"],
        "todm_sb.nnet.encoders": [
            "Encoder",
            "LayerStack",
            "StackedEncoder",
            "build_encoder",
            "register",
        ],
        "todm_sb.nnet.features": ["SpeechFeatures", "make_fbank"],
        "todm_sb.nnet.joiner": ["Joiner"],
        "todm_sb.nnet.predictor": ["LSTMPredictor", "StatelessPredictor"],
        "todm_sb.nnet.transducer": ["Transducer"],
    },
)
