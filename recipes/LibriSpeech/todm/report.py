#!/usr/bin/env python3
"""Writes report.md and report.html from all results below a folder.

    python report.py results/mini/1234
    python report.py results/compare-mini

Curves, tables, the Pareto front of search.py, the search space, commands and versions; the page
holds its pictures and opens without a network.
"""

import argparse

from todm_sb.arguments import path
from todm_sb.errors import one_line_errors
from todm_sb.report.document import write_report

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=path, help="output_folder of train.py or compare.py")
    with one_line_errors():
        for written in write_report(parser.parse_args().folder):
            print(written)
