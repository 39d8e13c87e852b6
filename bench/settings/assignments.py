"""The keys of each assignment, a class each. An assignment gives every token a row of each sub-table."""

from dataclasses import dataclass
from typing import ClassVar

from bench.settings.choices import Choice
from bench.settings.numbers import number, seed


@dataclass
class AssignmentConfig(Choice):
    """What every assignment takes. Methods without codes read only the corpus, to count its tokens."""

    choice_of: ClassVar[str] = "assignment"
    name: str = "???"
    # "task" (its training texts), or splits of tasks, text files and folders of them: "xnli:validation+texts/sw.txt.zst"
    corpus: str = "task"


@dataclass
class SequentialConfig(AssignmentConfig):
    """Base-Q digits of the token id, which cost no stored codes: complementary partitions, Shi et al., KDD 2020."""

    name: str = "sequential"


@dataclass
class SeededConfig(AssignmentConfig):
    """What assignments take that draw random numbers."""

    # null: the run's seed; else independent of it, so that seeds are paired over the same assignment
    seed: int | None = seed()


@dataclass
class RandomConfig(SeededConfig):
    """Base-Q digits of a seeded permutation of the token ids: the control for every claim about assignment."""

    name: str = "random"


@dataclass
class HashConfig(SeededConfig):
    """A hash of the token id, free to store; codes may coincide: the hashing trick, Weinberger et al., ICML 2009."""

    name: str = "hash"


@dataclass
class ClusteredConfig(SeededConfig):
    """What assignments take that cluster vectors of the tokens."""

    # static (the pretrained table) | context | both; null: what the assignment is named for
    vectors: str | None = None
    # a finished model (a name of conf/model) with the same vocabulary whose vectors stand for the tokens; null: the run's own
    model: str | None = None
    # a token's error counts (occurrences in the corpus + 1)^power
    frequency_power: float = number(0.0, least=0, most=2)


@dataclass
class ContextualConfig(ClusteredConfig):
    """Related tokens share sub-vectors, all codes differ: balanced k-means after Jaiswal & Liu, CIKM 2023. Vectors: context."""

    name: str = "contextual"


@dataclass
class PqConfig(ClusteredConfig):
    """k-means in each subspace, codes may coincide: product quantisation, Jegou et al., TPAMI 2011. Vectors: static."""

    name: str = "pq"


@dataclass
class ResidualAssignmentConfig(ClusteredConfig):
    """Each code's centroid stands for what the ones before leave over, for embedding.compose=sum. Vectors: static."""

    name: str = "residual"
