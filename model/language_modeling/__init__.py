"""Plain text in, more text out: a network that says which character (or word) comes next, and so can write."""
