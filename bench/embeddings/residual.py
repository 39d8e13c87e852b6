"""Residual quantisation: a token is a sum of f rows, each chosen for what the ones before leave over.

The fit of the codes is greedy (Chen, Guan & Wang, Sensors 2010); the tables are then refitted together, as in additive
quantisation (Babenko & Lempitsky, CVPR 2014).
"""

from bench.embeddings.coded import Pieces, Shape
from bench.settings.embeddings import ResidualConfig


class Residual(Pieces[ResidualConfig]):
    """A sum of f sub-tables over the whole width."""

    own_assignment = "residual"

    def shape(self, config: ResidualConfig, width: int) -> Shape:
        return Shape(config.subspaces or 0, config.rows or 0, width, "sum")


METHOD = Residual()
