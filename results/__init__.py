"""Results of experiments: found below a folder (experiments), as a table, on a terminal, as a picture, and a page."""
