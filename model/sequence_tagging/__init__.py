"""Words in, a tag for each of them out: names in a text, parts of speech, or whatever your columns hold."""
