"""The rows that are measured, and their operations as PyTorch counts them."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.models import architectures
from bench.perf import workload

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("work", "mean", "deviation"),
    [("training", 53.2, 13.0), ("distillation", 23.0, 12.4), ("evaluation", 45.9, 16.0)],
)
def test_synthetic_rows_are_as_long_as_real_ones_and_the_same_for_every_backbone(work, mean, deviation):
    rows = workload.synthetic_rows("tiny", work, 3668)
    assert rows.lengths.mean() == pytest.approx(mean, abs=1)
    assert rows.lengths.std() == pytest.approx(deviation, abs=1)
    limits = workload.LENGTHS[work]
    assert rows.lengths.min() >= limits.shortest and rows.lengths.max() <= limits.longest
    assert (rows.lengths == workload.synthetic_rows("xlm-r-base", work, 3668).lengths).all()
    padded = rows.dataset(pad_to=140, pad_token_id=7)
    columns = {"input_ids", "attention_mask"} | ({"token_type_ids"} if work != "distillation" else set())
    assert set(padded.column_names) == {*columns, "label"}
    assert {len(row) for name in columns for row in padded[name]} == {140}
    assert sum(padded[0]["attention_mask"]) == rows.lengths[0] and padded[0]["input_ids"][-1] == 7


def test_words_are_as_frequent_as_those_of_real_pairs():
    """MRPC's training pairs through XLM-R's tokenizer: 10,988 different ids, the first 100 are 53 % of the tokens."""
    ids = np.concatenate(workload.synthetic_rows("e5-small", "training", 3668).ids)
    counts = np.sort(np.unique(ids, return_counts=True)[1])[::-1]
    assert len(counts) == pytest.approx(10_988, rel=0.1)
    assert counts[:100].sum() / counts.sum() == pytest.approx(0.53, abs=0.03)
    assert ids.max() > 240_000, "over the whole vocabulary"


@pytest.mark.parametrize("work", ["training", "distillation", "evaluation"])
def test_operations_are_those_that_pytorch_counts(work):
    rows = workload.synthetic_rows("tiny", work, 5)
    model, counted = architectures.build("tiny", "dense", CPU), []
    model.config._attn_implementation = "eager"
    for ids in rows.ids:
        with FlopCounterMode(display=False) as counter:
            states = model.bert(torch.tensor([ids])).last_hidden_state
            if work != "evaluation":
                states.sum().backward()
            if work == "distillation":
                model.bert(torch.tensor([ids]))
        counted.append(counter.get_total_flops())
    assert workload.flops_per_row("tiny", workload.FORWARD_PASSES[work], rows.lengths) == pytest.approx(
        np.mean(counted), rel=0.05
    )
