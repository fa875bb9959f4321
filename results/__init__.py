"""Results of experiments: found below a folder (experiments), as a table, a picture, and a page."""
