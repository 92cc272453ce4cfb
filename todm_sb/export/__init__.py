"""Writing trained networks for deployment."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.export.onnx import export_onnx
    from todm_sb.export.run import export_run
    from todm_sb.export.speechbrain import export_folder
    from todm_sb.export.web import export_web

__all__ = ["export_folder", "export_onnx", "export_run", "export_web"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.export.onnx": ["export_onnx"],
        "todm_sb.export.run": ["export_run"],
        "todm_sb.export.speechbrain": ["export_folder"],
        "todm_sb.export.web": ["export_web"],
    },
)
