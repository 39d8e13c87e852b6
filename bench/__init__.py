"""A benchmark of compressed embeddings: how small can a language model's embedding table be?"""

__version__ = "0.1.0"
