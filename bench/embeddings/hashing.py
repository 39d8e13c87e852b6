"""The hashing trick (Weinberger et al., ICML 2009): a token's row number is a hash of its id; colliding tokens share a row."""

from bench.embeddings.coded import Coded
from bench.settings.embeddings import HashingConfig


class Hashing(Coded[HashingConfig]):
    """One sub-table over the whole width. Its codes are not stored; a row is the mean of its tokens' vectors."""

    fixed_assignment = "hash"


METHOD = Hashing()
