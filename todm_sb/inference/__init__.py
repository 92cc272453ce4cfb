"""Loading trained subnets and transcribing speech with them."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.inference.asr import SubnetASR
    from todm_sb.inference.onnx import OnnxASR
    from todm_sb.inference.streaming import StreamingSubnetASR

__all__ = ["OnnxASR", "StreamingSubnetASR", "SubnetASR"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.inference.asr": ["SubnetASR"],
        "todm_sb.inference.onnx": ["OnnxASR"],
        "todm_sb.inference.streaming": ["StreamingSubnetASR"],
    },
)
