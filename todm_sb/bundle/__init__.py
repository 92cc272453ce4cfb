"""Bundles: networks in a format that is safe to load from strangers."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.bundle.bundle import Bundle, read_bundle, write_bundle
    from todm_sb.bundle.manifest import BundledSubnet, Manifest

__all__ = ["Bundle", "BundledSubnet", "Manifest", "read_bundle", "write_bundle"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.bundle.bundle": ["Bundle", "read_bundle", "write_bundle"],
        "todm_sb.bundle.manifest": ["BundledSubnet", "Manifest"],
    },
)
