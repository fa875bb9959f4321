"""Plain text -> data_dir: a vocabulary, and each split as numbers. All without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model.text.plain import add_arguments, build_tokens

add_build_arguments = add_arguments


def build(source: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the text of `source` into `folder`; see `build_tokens`. Returns the values of DataParams."""
    return build_tokens(source, folder, "word", args)
