"""A sample table: visitors of a shop, and whether they buy. The rule behind it is known.

A visitor buys with the probability sigmoid(score). The score is 2.5 if the basket costs a quarter to a half of the
budget, else -2.5; plus 1.5 on a weekend, minus 2 for visitors from Nowhere. Since neither more nor less of a column
decides, a perceptron gets much further than logistic regression. Three in a hundred cells are empty.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

NUM_ROWS = 3000
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
TOWNS = ["Kent", "Douckville", "San Kila", "Nowhere"]


def write_sample(folder: Path, seed: int) -> None:
    """Write visitors.csv. The same seed writes the same rows."""
    rng = np.random.default_rng(seed)
    budget = rng.lognormal(4, 0.8, NUM_ROWS).round(2)
    basket = (budget * rng.uniform(0, 0.75, NUM_ROWS)).round(2)
    days, towns = rng.choice(DAYS, NUM_ROWS), rng.choice(TOWNS, NUM_ROWS, p=[0.4, 0.3, 0.2, 0.1])
    pages = rng.poisson(6, NUM_ROWS)  # which says nothing
    share = basket / budget
    score = (
        np.where((share > 0.25) & (share < 0.5), 2.5, -2.5) + 1.5 * np.isin(days, DAYS[5:]) - 2 * (towns == "Nowhere")
    )
    bought = np.where(rng.uniform(size=NUM_ROWS) < 1 / (1 + np.exp(-score)), "yes", "no")
    columns = [budget, basket, pages, days, towns]
    empty = rng.uniform(size=(NUM_ROWS, len(columns))) < 0.03
    with open(folder / "visitors.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["budget", "basket", "pages", "day", "town", "bought"])
        for i, cells in enumerate(zip(*columns, strict=True)):
            writer.writerow([*("" if empty[i, j] else cell for j, cell in enumerate(cells)), bought[i]])
