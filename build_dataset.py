"""Build a data set: raw files -> a folder that train.py reads.

python build_dataset.py                                      # data/SIGNS -> data/64x64_SIGNS
python build_dataset.py --data_dir my_photos --output_dir data/my_photos
python build_dataset.py --sample                             # no photos at hand: draw some
python build_dataset.py --task sequence_tagging              # data/kaggle -> data/ner
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.experiments import read_params
from engine.params import TrainingParams
from engine.tasks import Task
from model import TASKS
from utils import UserError, run_command


def parse_args() -> tuple[Task, argparse.Namespace]:
    default_task = TrainingParams.model_fields["task"].default
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task", default=default_task)
    task = TASKS[first.parse_known_args()[0].task]  # it knows the rest of the flags

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--task",
        default=default_task,
        help=f"kind of problem: {', '.join(TASKS)} ({default_task}); each has flags of its own: --task NAME --help",
    )
    parser.add_argument("--data_dir", help="folder of the raw files (%(default)s)")
    parser.add_argument("--output_dir", help="folder to build; it appears when all of it is there (%(default)s)")
    parser.add_argument("--sample", action="store_true", help="draw a sample data set instead of reading --data_dir")
    parser.add_argument("--seed", type=natural_number, default=230, help="decides splits and sample (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data set by the new one")
    task.add_build_arguments(parser)
    return task, parser.parse_args()


def natural_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


@contextlib.contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to build in, which takes `folder`'s place at the end of the block, or vanishes if the block fails.

    Raises:
        UserError: `folder` is there already and not to be replaced, or is no data set, or cannot be written.
    """
    if folder.exists():
        if not overwrite:
            raise UserError(f"{folder}: there already. --overwrite replaces it.")
        if not (folder / "dataset_params.json").is_file():
            raise UserError(f"{folder}: not a built data set, so it is not replaced. Choose another --output_dir.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in folder.parent.glob(f".{folder.name}.building-*"):
            if not process_is_alive(int(abandoned.suffix.split("-")[1])):
                shutil.rmtree(abandoned)
        building = folder.with_name(f".{folder.name}.building-{os.getpid()}")
        building.mkdir()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}). Choose another --output_dir.") from None
    try:
        yield building
        replace_folder(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def process_is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there, os.kill would not ask but kill
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def replace_folder(new: Path, folder: Path) -> None:
    """Put `new` where `folder` is or is not; `new` is gone or holds the old one afterwards.

    Two existing folders are exchanged in one step where the system can: Linux (renameat2) and macOS (renamex_np).
    """
    if not folder.exists():
        os.rename(new, folder)
        return
    if not exchange_folders(new, folder):
        replace_in_two_steps(new, folder)


def exchange_folders(first: Path, second: Path) -> bool:
    """Whether system and file system could do it."""
    exchange = 2  # RENAME_EXCHANGE and RENAME_SWAP are the same number
    here = -100  # AT_FDCWD
    a, b = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "renameat2"):
        return ctypes.CDLL(None).renameat2(here, a, here, b, exchange) == 0
    if sys.platform == "darwin":
        return ctypes.CDLL(None).renamex_np(a, b, exchange) == 0
    return False


def replace_in_two_steps(new: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        os.rename(folder, Path(aside) / folder.name)
        os.rename(new, folder)


def main() -> None:
    task, args = parse_args()
    source, target = Path(args.data_dir).resolve(), Path(args.output_dir).resolve()
    if not args.sample and (source == target or source in target.parents or target in source.parents):
        raise UserError(f"--output_dir {target} and --data_dir {source}: neither may be inside the other.")
    with new_folder(target, args.overwrite) as folder:
        try:
            task.build(args, folder)
        except UserError as error:
            if not any(word.startswith("--task") for word in sys.argv):
                others = ", ".join(name for name in TASKS if name != task.name)
                raise UserError(
                    f"{error}\n(--task was not given, so this was for {task.name}; there is {others}.)"
                ) from None
            raise
    print(f"Built {args.output_dir}. Next, for example:")
    name = Path(args.output_dir).name
    of_task = (
        f" --set task={task.name}"
        if (Path(args.base) / "params.json").is_file() and (read_params(TASKS, Path(args.base)).task != task.name)
        else ""
    )
    print(f"  python train.py --model_dir experiments/{name} --base {args.base} --data_dir {args.output_dir}{of_task}")


if __name__ == "__main__":
    run_command(main)
