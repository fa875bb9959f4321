"""Write docs/parameters.md, and a JSON schema per task for editors, from the tasks' Params; and draw docs/sample.jpg.

python -m docs.generate
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from engine.params import describe
from model import TASKS
from model.image_classification.sample import draw_hand

HEADER = """# Parameters

Everything that a `params.json` may say, task by task. Every parameter has a default. A file without `"task"` belongs to
the first task below that knows all its parameters. `make docs` writes this page.

An editor completes and checks the file when its first line names the schema:
`"$schema": "../../docs/image_classification.schema.json"`, or that of another task.
"""


def generate() -> dict[str, str]:
    """File name -> content."""
    files, sections = {}, [HEADER]
    for name in TASKS:
        schema = TASKS[name].Params.model_json_schema()
        schema["properties"]["$schema"] = {"type": "string"}
        schema["properties"]["task"]["default"] = name  # what it is for files that these parameters are from
        files[f"{name}.schema.json"] = json.dumps(schema, indent=2) + "\n"
        rows = [
            [f"`{key}`", f"`{json.dumps(field['default'])}`", describe(field), field["description"]]
            for key, field in schema["properties"].items()
            if key != "$schema"
        ]
        table = tabulate(rows, ["name", "default", "value", "meaning"], tablefmt="github")
        sections.append(f"## {name}\n\n{table}\n")
    files["parameters.md"] = "\n".join(sections)
    return files


def draw_contact_sheet(path: Path, columns: int = 12) -> None:
    """Some hands of each number, as `build_dataset.py --sample` draws them."""
    rng = np.random.default_rng(230)
    rows = [[np.asarray(draw_hand(label, rng).resize((64, 64))) for _ in range(columns)] for label in range(6)]
    Image.fromarray(np.vstack([np.hstack(row) for row in rows])).save(path, quality=88)


if __name__ == "__main__":
    folder = Path(__file__).parent
    for name, content in generate().items():
        (folder / name).write_text(content, encoding="utf-8")
    draw_contact_sheet(folder / "sample.jpg")
