"""A table of all experiments below a folder, best first; one for each task and data set.

    python synthesize_results.py --parent_dir experiments
    python synthesize_results.py --parent_dir experiments --columns val_f1 test_f1 learning_rate
    python synthesize_results.py --parent_dir experiments --format csv --output results.csv
    python synthesize_results.py --parent_dir experiments/learning_rate --plot --html report.html

On a terminal the table is as wide as the terminal, and says what was left out. In a file or a pipe it is whole.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from engine.commands import run_command
from results.experiments import find_results
from results.table import FORMATS, write_tables
from results.terminal import print_tables
from utils import UserError, logger, write_atomically

ENDINGS = {".csv": "csv", ".json": "json", ".tex": "latex"}  # of --output -> format


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parent_dir", default="experiments", help="folder that holds the experiments (%(default)s)")
    parser.add_argument("--format", choices=FORMATS, help="how to write the table (markdown, or as --output ends)")
    parser.add_argument("--output", help="file to write the whole table to as well: .md, .csv, .json, .tex")
    parser.add_argument("--all", action="store_true", help="every column, and experiments that are not trained")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these columns: parameters, status, or metrics, such as val_f1 (or 'val f1') and test_f1_on_photos",
    )
    parser.add_argument("--plot", action="store_true", help="draw the results into results.png, in the parent folder")
    parser.add_argument("--html", help="file for a page with everything, which opens from disk")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    parent_dir = Path(args.parent_dir)
    if not parent_dir.is_dir():
        raise UserError(f"--parent_dir {parent_dir}: no such folder.")
    results = find_results(parent_dir)
    print_tables(results, parent_dir, args.format or "markdown", args.columns, args.all)
    if args.output:
        format = args.format or ENDINGS.get(Path(args.output).suffix, "markdown")
        tables = write_tables(results, format, args.columns, args.all)
        with writing("--output", args.output):
            write_atomically(Path(args.output), tables + "\n")
    if args.plot:
        from results.picture import draw_results

        logger.info("%s", ", ".join(map(str, draw_results(results, parent_dir))))
    if args.html:
        from results.page import write_page

        with writing("--html", args.html):
            write_page(results, parent_dir, Path(args.html))
        logger.info("%s", args.html)


@contextlib.contextmanager
def writing(flag: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be written ({error.strerror}).") from None


if __name__ == "__main__":
    run_command(main)
