"""The hashing trick (Weinberger et al., ICML 2009): a token's row is a hash of its id; tokens that collide share it."""

from typing import Any, ClassVar

from bench.embeddings.subspace import Subspace


class Hashing(Subspace):
    """A single sub-table over the whole width, with codes that cost nothing, and rows that are the means of their tokens."""

    settings, extras = ("rows",), ("keep_dense", "table_dtype")
    own_assignment = "hash"
    fixed: ClassVar[dict[str, Any]] = {
        "subspaces": 1,
        "sub_dim": None,
        "compose": "concat",
        "init": "fitted",
        "gain": False,
        "rotation": None,
        "code_rows": None,
    }
