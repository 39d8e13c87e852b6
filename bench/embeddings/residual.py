"""Residual quantisation: a token is a sum of f rows, each of which approximates the residual of the rows before it.

The fit of the codes is greedy (Chen, Guan & Wang, Sensors 2010). The tables are then refitted jointly, as in additive
quantisation (Babenko & Lempitsky, CVPR 2014).
"""

from bench.embeddings.coded import Pieces, Shape
from bench.settings.embeddings import ResidualConfig


class Residual(Pieces[ResidualConfig]):
    """A sum of f sub-tables over the whole width."""

    fixed_assignment = "residual"

    def shape(self, config: ResidualConfig, width: int) -> Shape:
        return Shape(config.subspaces or 0, config.rows or 0, width, "sum")


METHOD = Residual()
