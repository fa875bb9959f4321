"""data_dir -> batches: the rows of the arrays that build_dataset.py wrote.

- inputs["numbers"]: batch_size x num_numbers; inputs["categories"]: batch_size x num_columns: see `Columns.encode`.
- labels: batch_size class numbers, or batch_size x num_labels 0 or 1, or batch_size x num_targets standardised numbers.
"""

from engine.loaders import ArrayDataset as Dataset

__all__ = ["Dataset"]
