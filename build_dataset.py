"""Build a data set: raw files -> a folder that train.py reads.

python build_dataset.py                                      # data/SIGNS -> data/64x64_SIGNS
python build_dataset.py --data_dir my_photos --output_dir data/my_photos
python build_dataset.py --sample                             # no photos at hand: draw some
python build_dataset.py --task sequence_tagging              # data/kaggle -> data/ner
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.building import new_folder, save_dataset_params
from engine.commands import command_line, run_command
from engine.experiments import example_of
from engine.tasks import Task
from model import TASKS
from utils import UserError


def parse_args() -> tuple[Task, argparse.Namespace]:
    default_task = next(iter(TASKS))
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task")
    task = TASKS[first.parse_known_args()[0].task or default_task]  # it knows the rest of the flags

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--task",
        help=f"kind of problem: {', '.join(TASKS)} ({default_task}); each has flags of its own: --task NAME --help",
    )
    parser.add_argument("--data_dir", help="folder of the raw files (%(default)s)")
    parser.add_argument("--output_dir", help="folder to build; it appears when all of it is there (%(default)s)")
    parser.add_argument("--sample", action="store_true", help="make a sample data set instead of reading --data_dir")
    parser.add_argument("--seed", type=natural_number, default=230, help="decides splits and sample (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data set by the new one")
    parser.set_defaults(data_dir=f"data/{task.name}", output_dir=task.Params.model_fields["data_dir"].default)
    if add_build_arguments := task.optional("add_build_arguments"):
        add_build_arguments(parser)
    args = parser.parse_args()
    if args.output_dir == parser.get_default("output_dir"):
        args.output_dir = args.output_dir.format(**vars(args))  # a default may name other flags: data/{size}x{size}
    return task, args


def natural_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


@contextlib.contextmanager
def raw_files(task: Task, args: argparse.Namespace) -> Iterator[Path]:
    """Where the raw files are: in --data_dir, or with --sample in a folder that lasts as long as the block."""
    if not args.sample:
        yield Path(args.data_dir)
        return
    with tempfile.TemporaryDirectory() as folder:
        task.optional("write_sample")(Path(folder), args.seed)
        yield Path(folder)


def main() -> None:
    task, args = parse_args()
    source, target = Path(args.data_dir).resolve(), Path(args.output_dir).resolve()
    if args.sample and not task.optional("write_sample"):
        raise UserError(f"--sample: the task {task.name} has no sample. Name raw files with --data_dir.")
    if not args.sample and (source == target or source in target.parents or target in source.parents):
        raise UserError(f"--output_dir {target} and --data_dir {source}: neither may be inside the other.")
    try:
        with new_folder(target, args.overwrite) as folder, raw_files(task, args) as raw:
            save_dataset_params(task, folder, task.build(raw, folder, args))
    except UserError as error:
        others = ", ".join(name for name in TASKS if name != task.name)
        hint = "" if args.task else f"\n(--task was not given, so this was for {task.name}; there is {others}.)"
        raise UserError(f"{error}{hint}") from None
    base, model_dir = example_of(TASKS, task), Path("experiments") / Path(args.output_dir).name
    print(f"Built {args.output_dir}. Next, for example:")
    if base is None:
        quoted = shlex.quote(str(model_dir))
        print(f'  mkdir -p {quoted} && echo \'{{"task": "{task.name}"}}\' > {quoted}/params.json')
    varied = ("--base", base) if base not in (None, model_dir) else ()
    print(" ", command_line("train.py", "--model_dir", model_dir, *varied, "--data_dir", args.output_dir))


if __name__ == "__main__":
    run_command(main)
