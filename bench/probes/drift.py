"""Live text against the text that an embedding was made for: has it drifted, and what would new codes be worth?"""

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
from bench.probes import coverage
from bench.probes.fit import errors
from bench.report.names import embedding_id
from bench.runs.identity import Prepared, prepare
from bench.settings.schema import DriftConfig, RunConfig
from bench.tasks import data as task_data
from bench.tasks.text import cached_counts
from bench.text import escape, markdown_table, slug

COVERAGE = ("unknown_rate", "split_rate", "tokens_per_word", "badly_fitted_rate")
HOW_TO_READ = (
    "divergence: Jensen-Shannon, in bits, between the token frequencies of the two texts; unseen_rate: share of the current text's tokens that the "
    "reference does not hold; by chance: the same after the passages of both were shuffled. weighted_error: of the embedding against the "
    "pretrained table, each token by its frequency in the text. badly_fitted_rate: share of the text's tokens whose error is in the "
    "worst tenth of the vocabulary's. The other rates are the tokenizer's: new codes do not change them.\n"
)


@dataclass(frozen=True)
class Text:
    """A text as the model reads it."""

    name: str
    passages: Sequence[str]
    counts: np.ndarray  # (V,)


@dataclass(frozen=True)
class Drift:
    """What `drift` finds: `between` by measure (value, by chance), `facts` of the reference and of the current text, limits passed."""

    between: dict[str, tuple[float, float]]
    facts: tuple[dict[str, float], dict[str, float]]
    passed: list[str]


@dataclass(frozen=True)
class Reassigned:
    """What `reassign` makes: facts on the current text with the old and the new embedding, and the new one as a file."""

    facts: tuple[dict[str, float], dict[str, float]]
    content: bytes  # safetensors: packed codes and tables
    codes_sha256: str | None
    prepared: Prepared


class Comparison:
    """The model and both texts; raises DataError for a text that is missing, empty or in a script that the model cannot read."""

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

    def counts(self, passages: Sequence[str]) -> np.ndarray:
        """Return the tokens' counts (V,)."""
        return cached_counts(self.tokenizer, passages, len(self.table), Path(self.config.cache_dir))

    def run_for(self, text: Text) -> Prepared:
        """Return the run whose embedding is made for this text."""
        return prepare(replace(self.config, assignment=replace(self.config.assignment, corpus=text.name)))

    def made_for(self, text: Text) -> tuple[nn.Module, Codes | None]:
        """Return the embedding and its codes as they are made for this text."""
        texts = swap.texts_of(text.name, self.config, self.split)
        return swap.compressed(self.run_for(text).config, self.model, self.tokenizer, texts)

    def facts(self, module: nn.Module, text: Text) -> dict[str, float]:
        """Return how the model's tokenizer and the embedding cover the text."""
        words = coverage.words_of(self.tokenizer, text.passages)
        if not words:
            raise DataError(f"{text.name} holds no words: give a text file with one passage a line.")
        covered = coverage.measure(
            words, coverage.token_errors(module, self.table), cast(int | None, self.tokenizer.unk_token_id)
        ).facts
        weighted = float(errors(module, self.table, text.counts, self.padding)["weighted_error"])
        return {
            "tokens": float(text.counts.sum()),
            **{name: covered[name] for name in COVERAGE},
            "weighted_error": weighted,
        }

    def drift(self) -> Drift:
        """Return how far the current text is from the reference, for the embedding that was made for the reference."""
        module, _ = self.made_for(self.reference)
        both, size = [*self.reference.passages, *self.current.passages], len(self.current.passages)
        order = np.random.default_rng(0).permutation(len(both))
        mixed = self.counts([both[i] for i in order[:size]])
        rest = self.reference.counts + self.current.counts - mixed
        between = {
            name: (measure(self.reference.counts, self.current.counts), measure(rest, mixed))
            for name, measure in (("divergence", divergence), ("unseen_rate", unseen_rate))
        }
        facts = (self.facts(module, self.reference), self.facts(module, self.current))
        return Drift(between, facts, passed(between, facts, self.config.drift))

    def reassign(self) -> Reassigned:
        """Return codes and tables made for the current text; raises ConfigError where they do not depend on any text."""
        run = self.run_for(self.current)
        if not any("corpus" in (run.canonical[part] or {}) for part in ("embedding", "assignment")):
            raise ConfigError(
                f"embedding={run.config.embedding.name} with assignment={run.config.assignment.name} is made without any text, so "
                "that nothing changes: use assignment=contextual, or set assignment.frequency_power=1."
            )
        (old, _), (new, codes) = self.made_for(self.reference), self.made_for(self.current)
        sha256 = None if codes is None else codes.sha256
        metadata = {
            "codes_sha256": sha256 or "",
            "config": json.dumps({key: run.canonical[key] for key in ("model", "embedding", "assignment")}),
        }
        content = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in new.state_dict().items()}, metadata
        )
        return Reassigned(
            (self.facts(old, self.current), self.facts(new, self.current)), content, sha256, run
        )


def divergence(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two counts (V,), in bits: 0 (equal frequencies) to 1 (no token in common)."""
    return float(jensenshannon(reference, current, base=2) ** 2)


def unseen_rate(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the share of the current tokens, by occurrence, that the reference does not hold."""
    return float(current[reference == 0].sum() / current.sum())


def passed(
    between: dict[str, tuple[float, float]],
    facts: tuple[dict[str, float], dict[str, float]],
    limits: DriftConfig,
) -> list[str]:
    """Return one sentence for each limit that is passed, with its key and both values."""
    before, now = facts
    found = {
        "divergence": (
            between["divergence"][0] - between["divergence"][1],
            "Jensen-Shannon divergence beyond chance",
        ),
        "unseen": (
            between["unseen_rate"][0] - between["unseen_rate"][1],
            "share of tokens unseen in the reference, beyond chance",
        ),
        "unknown": (
            now["unknown_rate"] - before["unknown_rate"],
            "rise of the share of words unknown to the tokenizer",
        ),
        "error": (
            now["weighted_error"] / before["weighted_error"] - 1 if before["weighted_error"] else 0.0,
            "relative rise of the embedding's error",
        ),
    }
    return [
        f"drift.{key} ({getattr(limits, key):g}) is passed: {value:.4f} {words}"
        for key, (value, words) in found.items()
        if value > getattr(limits, key)
    ]


def drift_table(found: Drift) -> str:
    """Return the comparison as Markdown."""
    between = [[name, "", f"{value:.4g}", f"{chance:.4g}"] for name, (value, chance) in found.between.items()]
    facts = [
        [name, f"{value:,.4g}", f"{found.facts[1][name]:,.4g}", ""] for name, value in found.facts[0].items()
    ]
    return markdown_table(["measure", "reference", "current", "by chance"], [*between, *facts], 3)


def reassigned_table(found: Reassigned) -> str:
    """Return old and new on the current text as Markdown."""
    return markdown_table(
        ["on the current text", "before", "after"],
        [[name, f"{value:,.4g}", f"{found.facts[1][name]:,.4g}"] for name, value in found.facts[0].items()],
        2,
    )


def write_drift(found: Drift, comparison: Comparison) -> Path:
    """Write drift/<model>--<current text>--<reference text>--<embedding>.md; return it."""
    path = _path("drift", comparison, ".md")
    said = "\n".join(f"- {escape(line)}" for line in found.passed) or "No limit is passed."
    store.write_atomically(path, f"# {_title(comparison)}\n\n{drift_table(found)}\n{said}\n\n{HOW_TO_READ}")
    return path


def write_reassigned(found: Reassigned, comparison: Comparison) -> list[Path]:
    """Write .safetensors, .json (with its SHA-256) and .md to reassigned/, named as for `write_drift`; return the files."""
    paths = [_path("reassigned", comparison, ending) for ending in (".safetensors", ".json", ".md")]
    facts: dict[str, Any] = {
        "sha256": store.sha256(found.content),
        "codes_sha256": found.codes_sha256,
        "before": found.facts[0],
        "after": found.facts[1],
        "config": {key: found.prepared.canonical[key] for key in ("model", "embedding", "assignment")},
    }
    store.write_atomically(paths[0], found.content)
    store.write_atomically(paths[1], json.dumps(facts, indent=1, allow_nan=False) + "\n")
    store.write_atomically(paths[2], f"# {_title(comparison)}\n\n{reassigned_table(found)}\n{HOW_TO_READ}")
    return paths


def _title(comparison: Comparison) -> str:
    """Return what is compared, by the files' names alone."""
    current, reference = (escape(Path(text.name).name) for text in (comparison.current, comparison.reference))
    return f"{current} against {reference}, {escape(comparison.config.model.name)}"


def _path(folder: str, comparison: Comparison, ending: str) -> Path:
    """Return the file of this model, both texts and this embedding: another comparison has another."""
    texts = (
        coverage.text_slug(text.name, text.passages) for text in (comparison.current, comparison.reference)
    )
    model = slug(comparison.config.model.name.lower())
    made = embedding_id(comparison.run_for(comparison.reference).canonical)
    return Path(comparison.config.results_dir) / folder / f"{'--'.join((model, *texts, made))}{ending}"
