"""What all text tasks share: reading files, words and characters as numbers, padded batches, word vectors."""
