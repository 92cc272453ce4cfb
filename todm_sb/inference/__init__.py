"""Loading trained subnets and transcribing speech with them."""

from todm_sb.inference.asr import SubnetASR
from todm_sb.inference.streaming import StreamingSubnetASR

__all__ = ["StreamingSubnetASR", "SubnetASR"]
