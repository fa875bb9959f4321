"""Building blocks that several networks use."""

# the numbers of padding and of unknown entries; vocabularies begin behind them, so that no text can name these
PAD, UNK = 0, 1
