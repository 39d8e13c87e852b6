"""The hashing trick (Weinberger et al., ICML 2009): a token's row is a hash of its id; tokens that collide share it."""

from bench.embeddings.coded import Coded
from bench.settings.embeddings import HashingConfig


class Hashing(Coded[HashingConfig]):
    """A single sub-table over the whole width, with codes that cost nothing, and rows that are the means of their tokens."""

    own_assignment = "hash"


METHOD = Hashing()
