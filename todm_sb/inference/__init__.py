"""Loading trained subnets and reading speech with them."""

from todm_sb.inference.asr import SubnetASR

__all__ = ["SubnetASR"]
