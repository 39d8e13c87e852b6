"""`assignment=sequential`: codes are the digits of the token ids."""

from bench.assignment.base import Assignment
from bench.assignment.digits import sequential

ASSIGNMENT = Assignment(lambda ask: sequential(ask.vocab_size, ask.subspaces, ask.rows), stored=False)
