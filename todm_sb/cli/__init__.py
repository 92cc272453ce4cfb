"""The command line ``todm-sb``.

A subcommand is a module here of its own name (with ``_`` for ``-``) that has
``add_arguments(parser)`` and ``run(arguments) -> int``, and a line in :data:`COMMANDS`.

Exit codes, for scripts: 0, everything was done; 1, some inputs failed and the others were done;
2, the command line, a setting or a model is wrong and nothing was done; 130, interrupted. Results
go to stdout, progress and errors to stderr.
"""

from todm_sb.cli.main import FAILED, OK, main

__all__ = ["FAILED", "OK", "main"]
