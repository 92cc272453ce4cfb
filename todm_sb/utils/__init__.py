"""What all other parts use and that knows none of them."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.utils.errors import ConfigError, DataError, TODMError

__all__ = ["ConfigError", "DataError", "TODMError"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.utils.errors": ["ConfigError", "DataError", "TODMError"],
    },
)
