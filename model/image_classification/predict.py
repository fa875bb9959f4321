"""Photos -> what the network takes, for predict.py and serve.py."""

from engine.images import ImageProcessing as Processing

__all__ = ["Processing"]
