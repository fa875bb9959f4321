"""Building blocks that several tasks use."""
