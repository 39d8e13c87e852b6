"""One codebook: a token is one of Q directions times a gain of its own (shape-gain quantisation, Gersho & Gray 1992)."""

from typing import Any, ClassVar

from bench.embeddings.subspace import Subspace


class Codebook(Subspace):
    """A single sub-table over the whole width, with codes by k-means of the rows at unit length, and gains."""

    settings, extras = ("rows",), ("keep_dense", "table_dtype")
    own_assignment = "pq"
    fixed: ClassVar[dict[str, Any]] = {
        "subspaces": 1,
        "sub_dim": None,
        "compose": "concat",
        "init": "fitted",
        "gain": True,
        "rotation": None,
        "code_rows": None,
    }
