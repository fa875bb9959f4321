"""How a command ends: with a message and an exit status for what a user can put right, a traceback for a bug."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from engine.signals import Stopped, stop
from utils import DISK_FULL, UserError, explain, logger, set_logger, silence


def command_line(script: str, *words: Any) -> str:
    """`python script words` for a message, quoted so that it can be pasted into a shell."""
    texts = ["python", script, *map(str, words)]
    return shlex.join(texts) if os.name == "posix" else subprocess.list2cmdline(texts)


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`. UserError and signals become a message and an exit status; see README.md for those."""
    _use_utf8(main)
    set_logger()
    threading.excepthook = _report_thread
    status = 0
    try:
        with stop:
            main()
    except (UserError, Stopped) as error:
        report(error)
        status = error.exit_status
    except BrokenPipeError:
        silence(sys.stdout.fileno())
        status = 128 + 13  # SIGPIPE, as of any program in a pipe
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (*DISK_FULL, errno.EROFS, errno.EACCES):
            report(explain(error))
            status = 2
        elif is_out_of_memory(error):
            first = (str(error).strip() or "no more to be had").split("\n")[0]
            report(UserError(f"Out of memory ({first}). In training, a smaller batch_size or network needs less."))
            status = 2
        else:
            logger.exception("This is a bug in the program (in a task of model/, or beyond), not in what it was given:")
            status = 1
    if status:  # after the except clause, which holds the error and with it loaders and their workers
        sys.exit(status)


def _use_utf8(main: Callable[[], None]) -> None:
    """If the locale has another encoding, start this command again in Python's UTF-8 mode.

    Files such as params.json are in UTF-8 and name folders, so the names of folders must be read as UTF-8 too. Python
    settles that when it starts (from 3.15 on, it takes UTF-8 by itself).
    """
    is_command = getattr(sys.modules["__main__"], "main", None) is main  # and not called by pytest, say
    if is_command and sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})


def is_out_of_memory(error: Exception) -> bool:
    """Whether the process or the device has no memory left. NumPy and torch say it differently."""
    return isinstance(error, MemoryError) or any(
        sign in f"{type(error).__name__} {error}" for sign in ("OutOfMemoryError", "can't allocate memory")
    )


def report(error: BaseException) -> None:
    with contextlib.suppress(UserError):  # the disk of the log file is full; the console has shown the message
        logger.error("%s", error)


def _report_thread(problem: Any) -> None:
    if isinstance(problem.exc_value, OSError) and problem.exc_value.errno in DISK_FULL:
        return  # from TensorBoard's thread; its writer raises the same error when it is next asked to write
    threading.__excepthook__(problem)
