#!/usr/bin/env python3
"""Trains a TODM supernet and measures its subnets.

    python train.py hparams/supernet.yaml --data_folder=/path/to/free-spoken-digit-dataset

Everything else is told by the YAML; any key of it can be overridden as ``--key=value``. Data that
cannot be trained on is left out and counted; in validation and test, what cannot be decoded counts
as deleted words. With ``--strict`` either is an error.
"""

import sys

from todm_sb.utils.errors import one_line_errors
from todm_sb.utils.extras import named_packages

with one_line_errors(), named_packages("training"):
    from todm_sb.training.train import main

if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
