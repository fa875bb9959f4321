"""A search."""
