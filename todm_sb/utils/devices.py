"""Devices that users name."""

from __future__ import annotations

import torch

from todm_sb.utils.errors import ConfigError


def usable_device(name: str) -> torch.device:
    """A device of PyTorch on which tensors can be made, and read: those of ``meta`` hold nothing.

    Args:
        name: e.g. ``cpu`` or ``cuda:1``.

    Raises:
        ConfigError: if there is none of this name on this machine.
    """
    try:
        tensor = torch.zeros(1, device=name)
        tensor.item()
        return tensor.device
    except (RuntimeError, AssertionError):
        raise ConfigError(f"--device {name} is not to be had on this machine") from None
