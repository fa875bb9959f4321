"""Predict a class, labels or numbers from the row of a table."""
