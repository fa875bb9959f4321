"""The tasks, by name. A task is a folder of this package; docs/adding_a_task.md shows how to write one."""

from engine.tasks import Tasks

TASKS = Tasks(
    "model",
    [
        "image_classification",
        "sequence_tagging",
        "text_classification",
        "language_modeling",
        "word_embeddings",
        "tabular_prediction",
    ],
)
