"""The keys of each pretraining, a class each: how a model that has no weights gets them."""

from dataclasses import dataclass
from typing import ClassVar

from bench.settings.choices import Choice
from bench.settings.numbers import number, seed


@dataclass
class PretrainingConfig(Choice):
    """Training from random weights, with the embedding in place, before recovery and fine-tuning."""

    choice_of: ClassVar[str] = "pretraining"
    name: str = "???"


@dataclass
class NoPretrainingConfig(PretrainingConfig):
    """The model's own weights; of a model without weights, random ones."""

    name: str = "none"


@dataclass
class MaskedLmPretrainingConfig(PretrainingConfig):
    """Guess masked tokens through the decoder tied to the embedding: Devlin et al., NAACL 2019. Rows are packed and never padded."""

    name: str = "masked_lm"
    corpus: str | None = None  # as assignment.corpus; has to be given
    steps: int = number(14_000, above=0)
    batch_size: int = number(256, above=0)  # rows
    length: int = number(128, least=8)  # tokens of a row, [CLS] and [SEP] included
    learning_rate: float = number(5e-4, above=0)
    weight_decay: float = number(0.01, least=0)
    # of all steps, linear from 0; then linear decay to 0
    warmup_fraction: float = number(0.06, least=0, most=1)
    # share of the rows, at least one, for the validation loss
    held_out: float = number(0.005, above=0, most=0.5)
    seed: int = seed()  # of weights, order and masks; fine-tuning seeds vary beside it
