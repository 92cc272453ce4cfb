"""``python -m todm_sb.cli``, the same as ``todm-sb``."""

import sys

from todm_sb.cli import main

sys.exit(main())
