"""Fits before training: every measure against a plain computation, the files of the command, the domain's corpus."""

import numpy as np
import pandas as pd
import pytest
import torch

from bench.errors import DataError
from bench.models.tokenizers import load_tokenizer
from bench.probes.fit import errors
from bench.settings.compose import compose_config
from bench.tasks.text import cached_counts, token_counts
from tests.support.commands import call_bench, run_bench
from tests.support.reference import built


def test_measures_equal_a_plain_computation():
    rng = np.random.default_rng(0)
    table = torch.from_numpy(rng.normal(size=(1013, 24)).astype(np.float32))
    _, module, _ = built("codebook", {"rows": 20}, 1013, 24, True, table)
    counts = rng.permutation(1013)
    found = errors(module, table, counts, padding_idx=0)
    dense, other, counts = (
        table[1:].numpy().astype(np.float64),
        module.materialise()[1:].detach().numpy().astype(np.float64),
        counts[1:],
    )
    missed, norms = ((dense - other) ** 2).sum(1), (dense**2).sum(1)
    assert found["relative_error"] == pytest.approx(np.sqrt(missed.sum() / norms.sum()), rel=1e-5)
    assert found["weighted_error"] == pytest.approx(
        np.sqrt((counts * missed).sum() / (counts * norms).sum()), rel=1e-5
    )
    rarest = np.argsort(counts)[:101]
    assert found["decile_errors"][-1] == pytest.approx(
        np.sqrt(missed[rarest].sum() / norms[rarest].sum()), rel=1e-5
    )
    assert found["distinct_share"] == len(np.unique(other.astype(np.float32), axis=0)) / 1012
    perfect = errors(torch.nn.Embedding.from_pretrained(table), table, np.arange(1013), padding_idx=0)
    assert (perfect["relative_error"], perfect["neighbour_overlap"], perfect["distinct_share"]) == (0, 1, 1)
    assert found["neighbour_overlap"] < 0.3


def test_the_command_writes_a_table_and_a_chart(tiny, tmp_path):
    done = run_bench("fit", "sweep=smoke", *[o for o in tiny if not o.startswith("task=")])
    assert done.returncode == 0, done.stderr
    assert "fit | 1 of 2 embeddings" in done.stderr and "fit | 2 of 2 embeddings" in done.stderr
    [table] = (tmp_path / "results" / "fit").glob("tiny--*.csv")
    frame = pd.read_csv(table)
    assert set(frame.kind) == {"dense", "sequential"} and frame.relative_error.max() > 0.5
    assert (
        frame.embedding_bytes.is_monotonic_increasing
        and frame[frame.kind == "dense"].relative_error.item() == 0
    )
    for ending in ("md", "png", "svg"):
        assert table.with_suffix(f".{ending}").stat().st_size > 200
    before = table.read_bytes()
    overrides = [o for o in tiny if not o.startswith("task=")]
    assert call_bench("fit", "sweep=smoke", *overrides, "model.weights=random").returncode == 0
    assert len([*table.parent.glob("tiny--*.csv")]) == 2 and table.read_bytes() == before


def test_frequencies_come_from_the_corpus_and_another_script_is_refused(tmp_path):
    tokenizer = load_tokenizer(compose_config(["model=all-minilm-l6-v2"]).model)
    counts = token_counts(tokenizer, ["the film", "the end"], 30522)
    assert counts[tokenizer.convert_tokens_to_ids("the")] == 2 and counts.sum() == 4
    for _ in range(2):
        assert (cached_counts(tokenizer, ["the film", "the end"], 30522, tmp_path) == counts).all()
    (file,) = (tmp_path / "counts").iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert (cached_counts(tokenizer, ["the film", "the end"], 30522, tmp_path) == counts).all()
    with pytest.raises(DataError, match="are unknown to the model's tokenizer"):
        token_counts(tokenizer, ["\U00013000\U00013001 \U00013002"] * 3, 30522)
