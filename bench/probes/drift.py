"""Live text beside the text that an embedding was made for: its drift, and the gain by new codes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench import store
from bench.assignment import Codes
from bench.errors import ConfigError, DataError
from bench.models import pretrained, swap
from bench.models.tokenizers import load_tokenizer
from bench.models.trimmed_tokenizer import trimmed_tokenizer
from bench.probes import coverage
from bench.probes.fit import errors
from bench.report.names import embedding_id
from bench.runs.identity import Prepared, prepare
from bench.settings.schema import DriftConfig, RunConfig
from bench.tasks import data as task_data
from bench.tasks.text import cached_counts
from bench.text import amount, escape, markdown_table, slug

LEAST = 20  # passages of a text: a shuffle of fewer says little about chance, and one of two texts of one passage nothing
COVERAGE = ("unknown_rate", "split_rate", "tokens_per_word", "badly_fitted_rate")
HOW_TO_READ = (
    "divergence: Jensen-Shannon divergence, in bits, of the token frequencies of the two texts; unseen_rate: share of the current text's "
    "tokens that the reference lacks; by chance: the same after the passages of both were shuffled. weighted_error: error of the embedding "
    "against the pretrained table, tokens weighted by their frequency in the text. badly_fitted_rate: share of the text's tokens with an "
    "error in the worst tenth of the vocabulary. The other rates depend on the tokenizer alone: new codes do not change them.\n"
)


@dataclass(frozen=True)
class Text:
    """A text with its tokens' counts."""

    name: str
    passages: Sequence[str]
    counts: np.ndarray  # (V,)


@dataclass(frozen=True)
class Drift:
    """The current text beside the reference."""

    between: dict[str, tuple[float, float]]  # by measure: its value, and its value by chance
    facts: tuple[dict[str, float], dict[str, float]]  # of the reference, of the current text
    exceeded: list[str]  # a sentence for each limit that is exceeded


@dataclass(frozen=True)
class Reassigned:
    """An embedding made for the current text."""

    facts: tuple[
        dict[str, float], dict[str, float]
    ]  # on the current text, with the old and the new embedding
    content: bytes  # safetensors: packed codes and tables
    codes_sha256: str | None
    config: dict[str, Any]  # the canonical configuration of model, embedding and assignment


class Comparison:
    """The model and both texts.

    Raises DataError for a text that is missing, empty or in a script that is unknown to the model.
    """

    def __init__(self, config: RunConfig, reference: str, current: str) -> None:
        self.config = config
        self.model: PreTrainedModel = pretrained.load_model(config.model, "none")
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(config.model)
        self.table: Tensor = pretrained.table(self.model)
        self.padding = cast(int | None, self.tokenizer.pad_token_id)
        self.split = task_data.load_split(config.task, config.data, "train").select_columns(
            config.task.columns
        )
        self.reference, self.current = self._text("--reference", reference), self._text("--current", current)

    def _text(self, flag: str, corpus: str) -> Text:
        try:
            passages = swap.texts_of(corpus, self.config, self.split)()
            return Text(corpus, passages, self.counts(passages))
        except DataError as error:
            raise DataError(f"{flag} ({corpus}): {str(error).removeprefix('assignment.corpus: ')}") from error

    def counts(self, passages: Sequence[str], reader: PreTrainedTokenizerBase | None = None) -> np.ndarray:
        """Return the tokens' counts (V,), by the model's tokenizer or by `reader`."""
        return cached_counts(reader or self.tokenizer, passages, len(self.table), Path(self.config.cache_dir))

    def run_for(self, text: Text) -> Prepared:
        """Return the run with the embedding for this text."""
        return prepare(replace(self.config, assignment=replace(self.config.assignment, corpus=text.name)))

    def made_for(self, text: Text) -> tuple[nn.Module, Codes | None]:
        """Return the embedding for this text, and its codes."""
        texts = swap.texts_of(text.name, self.config, self.split)
        return swap.compressed(self.run_for(text).config, self.model, self.tokenizer, texts)

    def facts(self, module: nn.Module, text: Text) -> dict[str, float]:
        """Return how the model's tokenizer and the embedding cover the text."""
        reader = trimmed_tokenizer(self.tokenizer, module)
        words, counts = coverage.words_of(reader, text.passages), self.counts(text.passages, reader)
        if not words:
            raise DataError(f"{text.name} contains no words: give a text file with one passage a line.")
        unknown = cast(int | None, self.tokenizer.unk_token_id)
        rates = coverage.measure(words, coverage.token_errors(module, self.table), unknown).facts
        facts = {"tokens": float(counts.sum()), **{name: rates[name] for name in COVERAGE}}
        weighted = errors(module, self.table, counts, self.padding)["weighted_error"]
        return facts | {"weighted_error": float(weighted)}

    def drift(self) -> Drift:
        """Return how far the current text is from the reference, for the embedding that was made for the reference.

        Raises DataError for a text of fewer than LEAST passages.
        """
        for flag, text in (("--reference", self.reference), ("--current", self.current)):
            if len(text.passages) < LEAST:
                raise DataError(
                    f"{flag} ({text.name}) has {len(text.passages)} of the {LEAST} passages that it takes to tell drift from chance: "
                    "give more text, one passage a line."
                )

        # By chance: shuffle the passages of both texts and split them as before.
        both, size = [*self.reference.passages, *self.current.passages], len(self.current.passages)
        order = np.random.default_rng(0).permutation(len(both))
        mixed = self.counts([both[i] for i in order[:size]])
        rest = self.reference.counts + self.current.counts - mixed
        between = {
            name: (measure(self.reference.counts, self.current.counts), measure(rest, mixed))
            for name, measure in (("divergence", divergence), ("unseen_rate", unseen_rate))
        }
        module, _ = self.made_for(self.reference)
        facts = (self.facts(module, self.reference), self.facts(module, self.current))
        return Drift(between, facts, exceeded(between, facts, self.config.drift))

    def reassign(self) -> Reassigned:
        """Return codes and tables for the current text. Raises ConfigError if they depend on no text."""
        run = self.run_for(self.current)
        if not any("corpus" in (run.canonical[part] or {}) for part in ("embedding", "assignment")):
            chosen = [
                f"{part}={kind['name']}"
                for part in ("embedding", "assignment")
                if (kind := run.canonical[part])
            ]
            raise ConfigError(
                f"{' with '.join(chosen)} is made without any text and does not change: use embedding=subspace with "
                "assignment=contextual, or set assignment.frequency_power=1."
            )
        (old, _), (new, codes) = self.made_for(self.reference), self.made_for(self.current)
        sha256 = None if codes is None else codes.sha256
        config = {key: run.canonical[key] for key in ("model", "embedding", "assignment")}
        tensors = {name: tensor.contiguous() for name, tensor in new.state_dict().items()}
        content = safetensors.torch.save(
            tensors, {"codes_sha256": sha256 or "", "config": json.dumps(config)}
        )
        facts = (self.facts(old, self.current), self.facts(new, self.current))
        return Reassigned(facts, content, sha256, config)


def divergence(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two counts (V,), in bits: 0 (equal frequencies) to 1 (no token in common)."""
    return float(jensenshannon(reference, current, base=2) ** 2)


def unseen_rate(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the share of the current tokens, by occurrence, that the reference lacks."""
    return float(current[reference == 0].sum() / current.sum())


def exceeded(
    between: dict[str, tuple[float, float]],
    facts: tuple[dict[str, float], dict[str, float]],
    limits: DriftConfig,
) -> list[str]:
    """Return one sentence for each limit that is exceeded, with its key and both values."""
    before, now = facts
    beyond_chance = {name: value - chance for name, (value, chance) in between.items()}
    unknown, error = now["unknown_rate"] - before["unknown_rate"], 0.0
    if before["weighted_error"]:
        error = now["weighted_error"] / before["weighted_error"] - 1
    measured = [
        ("divergence", beyond_chance["divergence"], "Jensen-Shannon divergence beyond chance"),
        ("unseen", beyond_chance["unseen_rate"], "share of tokens unseen in the reference, beyond chance"),
        ("unknown", unknown, "rise of the share of words unknown to the tokenizer"),
        ("error", error, "relative rise of the embedding's error"),
    ]
    return [
        f"drift.{key} ({getattr(limits, key):g}) is exceeded: {value:.4f} {words}"
        for key, value, words in measured
        if value > getattr(limits, key)
    ]


def drift_table(drift: Drift) -> str:
    """Return the comparison as Markdown."""
    between = [[name, "", f"{value:.4g}", f"{chance:.4g}"] for name, (value, chance) in drift.between.items()]
    facts = [[*row, ""] for row in _side_by_side(drift.facts)]
    return markdown_table(["measure", "reference", "current", "by chance"], [*between, *facts], numeric=3)


def reassigned_table(reassigned: Reassigned) -> str:
    """Return the facts with the old and the new embedding as Markdown."""
    return markdown_table(
        ["on the current text", "before", "after"], _side_by_side(reassigned.facts), numeric=2
    )


def _side_by_side(facts: tuple[dict[str, float], dict[str, float]]) -> list[list[str]]:
    left, right = facts
    return [[name, amount(value), amount(right[name])] for name, value in left.items()]


def write_drift(drift: Drift, comparison: Comparison) -> Path:
    """Write drift/<model>--<current text>--<reference text>--<embedding>.md; return it."""
    path = _path("drift", comparison, ".md")
    limits = "\n".join(f"- {escape(line)}" for line in drift.exceeded) or "No limit is exceeded."
    store.write_atomically(path, f"# {_title(comparison)}\n\n{drift_table(drift)}\n{limits}\n\n{HOW_TO_READ}")
    return path


def write_reassigned(reassigned: Reassigned, comparison: Comparison) -> list[Path]:
    """Write .safetensors, .json (with its SHA-256) and .md to reassigned/, named as for `write_drift`; return the files."""
    paths = [_path("reassigned", comparison, ending) for ending in (".safetensors", ".json", ".md")]
    facts: dict[str, Any] = {
        "sha256": store.sha256(reassigned.content),
        "codes_sha256": reassigned.codes_sha256,
        "before": reassigned.facts[0],
        "after": reassigned.facts[1],
        "config": reassigned.config,
    }
    store.write_atomically(paths[0], reassigned.content)
    store.write_atomically(paths[1], json.dumps(facts, indent=1, allow_nan=False) + "\n")
    store.write_atomically(
        paths[2], f"# {_title(comparison)}\n\n{reassigned_table(reassigned)}\n{HOW_TO_READ}"
    )
    return paths


def _title(comparison: Comparison) -> str:
    """Return the names of both files, without folders, and of the model."""
    current, reference = (escape(Path(text.name).name) for text in (comparison.current, comparison.reference))
    return f"{current} against {reference}, {escape(comparison.config.model.name)}"


def _path(folder: str, comparison: Comparison, ending: str) -> Path:
    """Return the file, named by the model, both texts and the embedding."""
    texts = [
        coverage.text_slug(text.name, text.passages) for text in (comparison.current, comparison.reference)
    ]
    embedding = embedding_id(comparison.run_for(comparison.reference).canonical)
    name = "--".join([slug(comparison.config.model.name.lower()), *texts, embedding])
    return Path(comparison.config.results_dir) / folder / f"{name}{ending}"
