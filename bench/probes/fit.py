"""The fit of an embedding to the pretrained table before any training: a cheap predictor of accuracy."""

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
from bench.models.trimmed_tokenizer import trimmed_tokenizer
from bench.runs.identity import Prepared
from bench.tasks import data as task_data
from bench.tasks.text import cached_counts

log = logging.getLogger("bench")
TOKENS, NEIGHBOURS = 1000, 10  # tokens with compared neighbours, and neighbours of each


def fits(runs: Sequence[Prepared]) -> list[dict[str, Any]]:
    """Return a row with sizes and errors for each embedding of the runs, which share a model.

    Errors are relative, sqrt(sum w ||e - e'||^2 / sum w ||e||^2): with w = 1, with the tokens' counts in the corpus of the
    run's assignment as w, and in each tenth of the tokens from the most to the least frequent.
    """
    distinct: dict[str, Prepared] = {}
    for run in runs:
        distinct.setdefault(repr([run.canonical["embedding"], run.canonical["assignment"]]), run)
    if not distinct:
        return []
    rows, began = list[dict[str, Any]](), time.perf_counter()
    model, tokenizer = (
        pretrained.load_model(runs[0].config.model, "none"),
        load_tokenizer(runs[0].config.model),
    )
    table = pretrained.table(model)
    for run in distinct.values():
        # Build the embedding.
        config = run.config
        split = task_data.load_split(config.task, config.data, "train").select_columns(config.task.columns)
        texts = swap.texts_of(config.assignment.corpus, config, split)
        module, codes = swap.compressed(config, model, tokenizer, texts)
        size = method(config.embedding.name).size(
            config.embedding, len(table), table.shape[1], codes is not None and codes.stored
        )

        # Compare its rows with the table's.
        reader = trimmed_tokenizer(tokenizer, module)
        counts = cached_counts(reader, texts(), len(table), Path(config.cache_dir))
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
        seconds = time.perf_counter() - began
        log.info("fit | %d of %d embeddings after %.0f s", len(rows), len(distinct), seconds)
    return rows


@torch.no_grad()
def errors(module: nn.Module, table: Tensor, counts: np.ndarray, padding_idx: int | None) -> dict[str, Any]:
    """Return relative_error, weighted_error, decile_errors, distinct_share and neighbour_overlap, without the padding token.

    `counts` (V,) are the tokens' counts in a text.
    """
    tokens = torch.tensor([token for token in range(len(table)) if token != padding_idx])
    rows, originals = torch.cat([module(ids) for ids in tokens.split(8192)]), table[tokens]
    squares = (rows - originals).double().square().sum(1).numpy()
    norms = originals.double().square().sum(1).numpy()
    weights = counts[tokens.numpy()]
    return {
        "relative_error": relative_error(squares, norms),
        "weighted_error": float(np.sqrt((weights * squares).sum() / (weights * norms).sum())),
        "decile_errors": decile_errors(squares, norms, weights),
        "distinct_share": len({row.tobytes() for row in rows.numpy()}) / len(rows),
        "neighbour_overlap": overlap(originals, rows),
    }


def overlap(originals: Tensor, rows: Tensor) -> float:
    """Return the share of nearest neighbours (cosine; NEIGHBOURS of each of TOKENS seeded tokens) that both tables share."""
    tokens = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(originals))[:TOKENS]))
    nearest = []
    for table in (originals, rows):
        unit = nn.functional.normalize(table, dim=1)
        similarity = unit[tokens] @ unit.T
        similarity[torch.arange(len(tokens)), tokens] = -2  # a token is not its own neighbour
        nearest.append(similarity.topk(min(NEIGHBOURS, len(originals) - 1), dim=1).indices)
    same = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(2)
    return float(same.float().mean())
