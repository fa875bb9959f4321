"""A table of all experiments below a folder, best first; one for each task.

python synthesize_results.py --parent_dir experiments
python synthesize_results.py --parent_dir experiments --format csv --output results.csv
python synthesize_results.py --parent_dir experiments/learning_rate --plot --html report.html
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from engine.commands import run_command
from results.experiments import best_first, find_experiments
from results.table import FORMATS, make_table, merge_seeds
from utils import UserError, logger, write_atomically


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parent_dir", default="experiments", help="folder that holds the experiments (%(default)s)")
    parser.add_argument("--format", default="markdown", choices=FORMATS, help="how to write the table (%(default)s)")
    parser.add_argument("--output", help="file to write the table to, besides printing it")
    parser.add_argument("--plot", action="store_true", help="draw the results into results.png, in the parent folder")
    parser.add_argument("--html", help="file for a page with everything, which opens from disk")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    parent_dir = Path(args.parent_dir)
    if not parent_dir.is_dir():
        raise UserError(f"--parent_dir {parent_dir}: no such folder.")
    groups = defaultdict(list)
    for experiment in find_experiments(parent_dir):
        # the columns of two tasks have little in common; but a program that reads the file wants one
        groups["" if args.format in ("csv", "json") else experiment.params.get("task", "")].append(experiment)
    for_programs = args.format in ("csv", "json")
    tables = [make_table(group if for_programs else merge_seeds(group)) for group in groups.values()]
    table = "\n\n".join(FORMATS[args.format](*table) for table in tables or [make_table([])])
    print(table if groups or args.format != "markdown" else f"No experiments below {parent_dir}.")
    if args.output:
        try:
            write_atomically(Path(args.output), table + "\n")
        except OSError as error:
            raise UserError(f"--output {args.output}: cannot be written ({error.strerror}).") from None
    if args.plot or args.html:
        from results import page as results_page

        ranked = [best_first(group) for group in groups.values()]
        if args.plot:
            drawn = []
            for group in ranked:
                name = "results.png" if len(ranked) == 1 else f"results_{group[0].params.get('task')}.png"
                drawn += [parent_dir / name] * results_page.draw(group, parent_dir, parent_dir / name)
            if not drawn:
                raise UserError(f"{parent_dir}: no experiment here was trained, so there is nothing to draw.")
            logger.info("%s", ", ".join(map(str, drawn)))
        if args.html:
            try:
                results_page.write_page([(group, *make_table(group)) for group in ranked], parent_dir, Path(args.html))
            except OSError as error:
                raise UserError(f"--html {args.html}: cannot be written ({error.strerror}).") from None
            logger.info("%s", args.html)


if __name__ == "__main__":
    run_command(main)
