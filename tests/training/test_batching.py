"""Batches: every row once an epoch, little padding, and exactly what a plain collator would give."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.training.batching import Examples, evaluation_batches, training_batches


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 3))
def test_an_epoch_has_every_row_once(lengths, batch_size, seed):
    lengths = np.array(lengths)
    per_epoch = -(-len(lengths) // batch_size)
    stream = training_batches(lengths, batch_size, seed)
    for _ in range(2):
        rows = np.concatenate([next(stream) for _ in range(per_epoch)])
        assert sorted(rows) == list(range(len(lengths)))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 400))
def test_an_evaluation_has_every_row_once_in_batches_as_large_as_the_tokens_allow(lengths, tokens):
    lengths = np.array(lengths)
    order, ends = evaluation_batches(lengths, tokens)
    assert sorted(order) == list(range(len(lengths)))
    assert ends[-1] == len(lengths)
    begin = 0
    for end in ends:
        longest = lengths[order[begin:end]].max()
        assert longest == lengths[order[begin]] and end > begin
        assert (end - begin) * longest <= tokens or end == begin + 1
        assert end == len(lengths) or (end + 1 - begin) * longest > tokens
        begin = end


def test_batches_depend_on_the_seed_and_pad_little():
    lengths = np.random.default_rng(0).integers(5, 100, 4000)
    take = lambda seed: [next(stream) for stream in [training_batches(lengths, 32, seed)] for _ in range(125)]  # noqa: E731
    first, again, other = take(0), take(0), take(1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    padded = sum(lengths[rows].max() * len(rows) for rows in first)
    assert padded < 1.1 * lengths.sum()
    order = [lengths[rows].mean() for rows in first]
    assert order != sorted(order), "batches must not come in the order of their length"


@pytest.mark.parametrize("regression", [False, True])
def test_a_batch_is_what_a_padding_collator_gives(regression):
    rng = np.random.default_rng(1)
    rows = [
        {
            "input_ids": rng.integers(1, 99, n).tolist(),
            "token_type_ids": rng.integers(0, 2, n).tolist(),
            "label": float(rng.random()) if regression else int(rng.integers(3)),
        }
        for n in rng.integers(1, 12, 20)
    ]
    examples = Examples.from_dataset(
        datasets.Dataset.from_list(rows), pad_token_id=7, device=torch.device("cpu")
    )
    chosen = np.array([3, 0, 19, 3])
    inputs, labels = examples.batch(chosen)
    width = max(len(rows[i]["input_ids"]) for i in chosen)
    for at, i in enumerate(chosen):
        n = len(rows[i]["input_ids"])
        assert inputs["input_ids"][at].tolist() == rows[i]["input_ids"] + [7] * (width - n)
        assert inputs["token_type_ids"][at].tolist() == rows[i]["token_type_ids"] + [0] * (width - n)
        assert inputs["attention_mask"][at].tolist() == [1] * n + [0] * (width - n)
        assert labels[at].item() == pytest.approx(rows[i]["label"])
    assert labels.is_floating_point() == regression
