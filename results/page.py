"""Results as a page with everything in one file: no server, no network."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

from engine.experiments import read_history
from results.experiments import Result, best_first, by_task
from results.table import make_table
from utils import write_atomically

TEMPLATE = Path(__file__).parent / "page.html"


def write_page(results: list[Result], parent_dir: Path, path: Path) -> None:
    """Write a page with a table and the curves of each task."""
    data = {
        "title": str(parent_dir),
        "about": f"{len(results)} experiments, {time.strftime('%Y-%m-%d %H:%M')}",
        "groups": [describe_task(best_first(group), parent_dir) for group in by_task(results)],
    }
    # NaN is no JSON, and a closing tag would end the script
    text = json.dumps(without_nan(data), allow_nan=False).replace("<", "\\u003c")
    write_atomically(path, TEMPLATE.read_text(encoding="utf-8").replace("DATA", text, 1))


def describe_task(results: list[Result], parent_dir: Path) -> dict[str, Any]:
    experiments = [describe(result, parent_dir) for result in results]
    return {
        "task": results[0].task,
        "metric": results[0].monitor,
        **make_table(results)._asdict(),
        "experiments": experiments,
    }


def describe(result: Result, parent_dir: Path) -> dict[str, Any]:
    folder = parent_dir / result.name
    history = read_history(folder)
    names = list(dict.fromkeys(["loss", result.monitor, *(history[0]["val"] if history else [])]))[:3]
    picture = ""
    with contextlib.suppress(FileNotFoundError):
        content = base64.b64encode((folder / "confusion_matrix.png").read_bytes()).decode()
        picture = f"data:image/png;base64,{content}"
    curves = {name: {s: [entry[s].get(name) for entry in history] for s in ("train", "val")} for name in names}
    return {
        "name": result.name,
        "folder": str(folder),
        "params": result.params,
        "error": result.error,
        "curves": curves if history else {},
        "picture": picture,
    }


def without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    return [without_nan(part) for part in value] if isinstance(value, list | tuple) else value
