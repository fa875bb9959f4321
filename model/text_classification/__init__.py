"""A text in, a class out: the sentiment of a review, the language of a name, or whatever your labels say."""
