"""The keys of each recovery, a class each: what is trained between the swap and the fine-tuning."""

from dataclasses import dataclass
from typing import ClassVar

from bench.settings.choices import Choice
from bench.settings.numbers import number, seed


@dataclass
class RecoveryConfig(Choice):
    """Training between the swap and the fine-tuning, on text without labels."""

    choice_of: ClassVar[str] = "recovery"
    needs_masked_lm_head: ClassVar[bool] = False  # and a mask token
    name: str = "???"


@dataclass
class NoRecoveryConfig(RecoveryConfig):
    """Straight from the swap to the fine-tuning."""

    name: str = "none"


@dataclass
class TrainedRecoveryConfig(RecoveryConfig):
    """The keys of every recovery that trains."""

    corpus: str = "task"  # as assignment.corpus
    steps: int = number(4000, above=0)
    batch_size: int = number(256, above=0)
    learning_rate: float = number(1e-4, above=0)
    table_factor: float = number(10.0, above=0)  # the embedding's rate, as a multiple of learning_rate
    max_length: int = number(64, above=0)  # tokens
    # of batches and masks; null: the run's seed; else independent of it, so that one recovered model serves every seed
    seed: int | None = seed()


@dataclass
class DistilConfig(TrainedRecoveryConfig):
    """Match the dense model's embeddings and hidden states: after TinyBERT, Jiao et al., EMNLP 2020."""

    name: str = "distil"


@dataclass
class MaskedLmConfig(TrainedRecoveryConfig):
    """Guess masked tokens through the tied decoder, as in pretraining: Devlin et al., NAACL 2019. Needs a masked-LM head."""

    needs_masked_lm_head: ClassVar[bool] = True
    name: str = "masked_lm"
    batch_size: int = number(32, above=0)
    learning_rate: float = number(5e-5, above=0)
