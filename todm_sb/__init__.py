"""Train one speech-recognition supernet, deploy many on-device models (TODM) on SpeechBrain."""

import logging
from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.bundle.bundle import read_bundle, write_bundle
    from todm_sb.decoders.ctc import CTCSearcher
    from todm_sb.decoders.speechbrain import TransducerBeamSearcher
    from todm_sb.decoders.transducer import TransducerSearcher
    from todm_sb.inference.asr import SubnetASR
    from todm_sb.inference.onnx import OnnxASR
    from todm_sb.inference.streaming import StreamingSubnetASR
    from todm_sb.losses.distillation import AlphaDivergence
    from todm_sb.losses.pruning import Pruning
    from todm_sb.nnet.encoders.registry import register
    from todm_sb.nnet.transducer import Transducer
    from todm_sb.optim.eden import Eden
    from todm_sb.optim.scaled_adam import ScaledAdam
    from todm_sb.space import SearchSpace, SubnetConfig
    from todm_sb.supernet.cost import count_parameters
    from todm_sb.supernet.extract import extract_subnet
    from todm_sb.supernet.objective import Objective
    from todm_sb.utils.errors import ConfigError, DataError, TODMError

__version__ = "0.1.0"
__all__ = [
    "AlphaDivergence",
    "CTCSearcher",
    "ConfigError",
    "DataError",
    "Eden",
    "Objective",
    "OnnxASR",
    "Pruning",
    "ScaledAdam",
    "SearchSpace",
    "StreamingSubnetASR",
    "SubnetASR",
    "SubnetConfig",
    "TODMError",
    "Transducer",
    "TransducerBeamSearcher",
    "TransducerSearcher",
    "count_parameters",
    "extract_subnet",
    "read_bundle",
    "register",
    "write_bundle",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.bundle.bundle": ["read_bundle", "write_bundle"],
        "todm_sb.decoders.ctc": ["CTCSearcher"],
        "todm_sb.decoders.speechbrain": ["TransducerBeamSearcher"],
        "todm_sb.decoders.transducer": ["TransducerSearcher"],
        "todm_sb.inference.asr": ["SubnetASR"],
        "todm_sb.inference.onnx": ["OnnxASR"],
        "todm_sb.inference.streaming": ["StreamingSubnetASR"],
        "todm_sb.losses.distillation": ["AlphaDivergence"],
        "todm_sb.losses.pruning": ["Pruning"],
        "todm_sb.nnet.encoders.registry": ["register"],
        "todm_sb.nnet.transducer": ["Transducer"],
        "todm_sb.optim.eden": ["Eden"],
        "todm_sb.optim.scaled_adam": ["ScaledAdam"],
        "todm_sb.space": ["SearchSpace", "SubnetConfig"],
        "todm_sb.supernet.cost": ["count_parameters"],
        "todm_sb.supernet.objective": ["Objective"],
        "todm_sb.supernet.extract": ["extract_subnet"],
        "todm_sb.utils.errors": ["ConfigError", "DataError", "TODMError"],
    },
)

# When a recipe names one of SpeechBrain's loggers, that module says that it cannot save pictures
# of speech synthesis. Here is none.
logging.getLogger("speechbrain.utils.train_logger").addFilter(
    lambda record: "torchvision" not in record.getMessage()
)
