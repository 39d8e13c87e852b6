"""Residual quantisation: a token is a sum of f rows, each chosen for what the ones before leave over.

The fit of the codes is greedy (Chen, Guan & Wang, Sensors 2010); the tables are then refitted together, as in additive
quantisation (Babenko & Lempitsky, CVPR 2014).
"""

from typing import Any, ClassVar

from bench.embeddings.subspace import Subspace


class Residual(Subspace):
    """A sum of f sub-tables over the whole width."""

    settings, extras = ("subspaces", "rows"), ("keep_dense", "gain", "table_dtype")
    own_assignment = "residual"
    fixed: ClassVar[dict[str, Any]] = {
        "sub_dim": None,
        "compose": "sum",
        "init": "fitted",
        "rotation": None,
        "code_rows": None,
    }
