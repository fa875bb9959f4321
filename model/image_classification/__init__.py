"""Photos in, one of several classes out: hand signs, or whatever your folders hold."""
