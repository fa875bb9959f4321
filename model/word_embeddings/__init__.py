"""Plain text in, a vector for each word out: words that stand in the same company get similar vectors."""
