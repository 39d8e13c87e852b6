"""How well an embedding fits the pretrained table before any training: a predictor that costs little."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings import method
from bench.embeddings.table_error import decile_errors, relative_error
from bench.models import pretrained, swap
from bench.models.tokenizers import load_tokenizer
from bench.runs.identity import Prepared
from bench.tasks import data as task_data
from bench.tasks.text import cached_counts

log = logging.getLogger("bench")
ASKED, NEIGHBOURS = 1000, 10  # tokens whose nearest neighbours are compared, and how many of them


def fits(runs: Sequence[Prepared]) -> list[dict[str, Any]]:
    """Return one row for each embedding among the runs, which share a model: its sizes and errors.

    Errors are relative, sqrt(sum w ||e - e'||^2 / sum w ||e||^2): with w = 1, with w the tokens' counts in the corpus of
    the run's assignment, and in each tenth of the tokens from the most to the least frequent.
    """
    model, tokenizer, rows, different = None, None, list[dict[str, Any]](), dict[str, Prepared]()
    for run in runs:
        different.setdefault(repr([run.canonical["embedding"], run.canonical["assignment"]]), run)
    began = time.perf_counter()
    for run in different.values():
        config = run.config
        if model is None or tokenizer is None:
            model, tokenizer = (
                pretrained.load_model(config.model, "none"),
                load_tokenizer(config.model),
            )
        split = task_data.load_split(config.task, config.data, "train").select_columns(config.task.columns)
        texts = swap.texts_of(config.assignment.corpus, config, split)
        table = pretrained.table(model)
        module, codes = swap.compressed(config, model, tokenizer, texts)
        size = method(config.embedding.name).size(
            config.embedding, len(table), table.shape[1], codes is not None and codes.stored
        )
        counts = cached_counts(tokenizer, texts(), len(table), Path(config.cache_dir))
        padding = cast(int | None, tokenizer.pad_token_id)
        rows.append(
            {
                "model": config.model.name,
                "config": run.canonical,
                "embedding_bytes": size.bytes,
                "embedding_params": size.params,
                "byte_share": size.bytes / (4 * table.numel()),
                **errors(module, table, counts, padding),
            }
        )
        log.info(
            "fit | %d of %d embeddings after %.0f s", len(rows), len(different), time.perf_counter() - began
        )
    return rows


@torch.no_grad()
def errors(module: nn.Module, table: Tensor, counts: np.ndarray, padding_idx: int | None) -> dict[str, Any]:
    """Return relative_error, weighted_error, decile_errors, distinct_share and neighbour_overlap; padding is left out."""
    own = torch.tensor([token for token in range(len(table)) if token != padding_idx])
    found = torch.cat([module(some) for some in own.split(8192)])
    wanted = table[own]
    missed = (found - wanted).double().square().sum(1).numpy()
    norms = wanted.double().square().sum(1).numpy()
    occurrences = counts[own.numpy()]
    return {
        "relative_error": relative_error(missed, norms),
        "weighted_error": float(np.sqrt((occurrences * missed).sum() / (occurrences * norms).sum())),
        "decile_errors": decile_errors(missed, norms, occurrences),
        "distinct_share": len({row.tobytes() for row in found.numpy()}) / len(found),
        "neighbour_overlap": overlap(wanted, found),
    }


def overlap(wanted: Tensor, found: Tensor) -> float:
    """Return the share of the nearest neighbours (cosine, NEIGHBOURS of each of ASKED seeded tokens) that stay the same."""
    asked = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(wanted))[:ASKED]))
    nearest = []
    for table in (wanted, found):
        unit = nn.functional.normalize(table, dim=1)
        likeness = unit[asked] @ unit.T
        likeness[torch.arange(len(asked)), asked] = -2  # not its own neighbour
        nearest.append(likeness.topk(min(NEIGHBOURS, len(wanted) - 1), dim=1).indices)
    same = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(2)
    return float(same.float().mean())
