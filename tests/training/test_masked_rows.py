"""Masked positions alone give the loss and the gradients of the full decoder; what is masked, and how often."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertModel

import bench.assignment
from bench.embeddings import method
from bench.embeddings.base import Source, Vocabulary
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.settings.choices import CHOICES
from bench.training.pretraining import masked_rows
from bench.training.pretraining.decoder import CodeDecoder, TableDecoder, decoder
from bench.training.pretraining.masked_rows import MaskedRows
from tests.support.pretraining import VOCAB, tokenizer

ROWS, STEP = torch.tensor([7, 0, 123_456]), torch.tensor([3])


def learner(
    name: str = "dense", assignment: str = "sequential", padding: int = 0, **keys: object
) -> MaskedRows:
    """Return the learner of a small BERT with random weights whose tables are drawn."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    encoder = BertModel(BertConfig(vocab_size=VOCAB, pad_token_id=padding, **sizes))
    encoder.embeddings.word_embeddings.weight.data.normal_()
    chosen, table = method(name), encoder.get_input_embeddings().weight.detach()
    keys |= {"init": "random"} if name != "dense" else {}
    config = chosen.resolve(CHOICES["embedding"][name](**keys), *table.shape)
    codes = None
    if chosen.assigned:
        kind = CHOICES["assignment"][chosen.fixed_assignment or assignment]()
        shape = dict(zip(("subspaces", "rows"), chosen.codes(config), strict=True))
        found = bench.assignment.assign(
            kind, vocab_size=VOCAB, table=table.numpy(), vectors=None, cache_dir=PATHS.cache, **shape
        )
        codes = found.codes
    vocabulary = Vocabulary(np.arange(VOCAB), (), 1)
    generator = torch.Generator().manual_seed(0)
    source = Source(table, padding, codes, vocabulary=vocabulary, generator=generator)
    encoder.set_input_embeddings(chosen.build(config, source))
    made = MaskedRows(encoder, tokenizer(padding), seed=0)
    nn.init.normal_(made.heads[0].decoder.bias)  # no training has changed it yet
    return made


PATHS = SimpleNamespace(cache=None)


@pytest.fixture(autouse=True)
def cache(tmp_path):
    PATHS.cache = tmp_path


def ids(length: int = 32) -> torch.Tensor:
    """Return three rows as packing makes them, with a separator in the middle."""
    rows = torch.randint(5, VOCAB, (3, length), generator=torch.Generator().manual_seed(1))
    rows[:, 0], rows[:, -1], rows[1, 9] = 2, 3, 3
    return rows


def full_decoder(made: MaskedRows, rows: torch.Tensor) -> torch.Tensor:
    """Return each row's loss (B,) by the logits of all tokens at all places, B x L x V."""
    shown, columns, counts = made.hidden(rows, ROWS, STEP)
    head, embedding = made.heads[0], made.encoder.get_input_embeddings()
    states = made.encoder(shown, attention_mask=torch.ones_like(rows)).last_hidden_state
    hidden = head.norm(F.gelu(head.dense(states)))
    dense = isinstance(embedding, nn.Embedding)
    logits = (hidden @ embedding.weight.T if dense else embedding.decoder(None)(hidden)) + head.decoder.bias
    losses = F.cross_entropy(logits.flatten(0, 1), rows.flatten(), reduction="none").view_as(rows)
    assert counts.all()
    return losses.gather(1, columns).mean(1)


CASES = [
    ("dense", TableDecoder, {}),
    ("subspace", CodeDecoder, {"subspaces": 2}),
    ("subspace", CodeDecoder, {"subspaces": 3}),
    ("subspace", CodeDecoder, {"subspaces": 4}),
    ("subspace", CodeDecoder, {"subspaces": 3, "assignment": "random"}),
    ("subspace", CodeDecoder, {"subspaces": 2, "padding": 1, "assignment": "random"}),
    ("subspace", CodeDecoder, {"subspaces": 3, "compose": "sum"}),
    ("subspace", TableDecoder, {"subspaces": 3, "sub_dim": 4}),  # an up-projection
    ("subspace", TableDecoder, {"subspaces": 8, "rows": 8, "assignment": "pq"}),
    ("subspace", TableDecoder, {"subspaces": 2, "rows": 20, "assignment": "pq"}),  # codes that coincide
    ("subspace", TableDecoder, {"subspaces": 3, "keep_dense": 9}),
    ("hashing", TableDecoder, {"rows": 40}),
    ("low_rank", TableDecoder, {"rank": 4}),
]


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize(("name", "kind", "keys"), CASES)
def test_masked_positions_alone_give_loss_and_gradients_of_the_full_decoder(
    name, kind, keys, parts, monkeypatch
):
    monkeypatch.setattr("bench.training.pretraining.decoder.AT_ONCE", -(-15 * VOCAB // parts))
    made, rows = learner(name, **keys), ids()
    assert type(made.heads[0].decoder) is kind
    parameters = [p for p in made.parameters() if p.requires_grad]

    expected = full_decoder(made, rows)
    gradients = torch.autograd.grad(expected.sum(), parameters)
    found = made(input_ids=rows, rows=ROWS, step=STEP).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(found.sum(), parameters), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 150.0])  # logits with a standard deviation of 1 and of about 60
def test_the_sum_over_codes_is_that_over_all_tokens_of_a_real_vocabulary(scale):
    vocab_size, width, rows = 30_522, 384, 32
    codes = bench.assignment.computed(CHOICES["assignment"]["sequential"](), vocab_size, 3, rows)
    embedding = SubspaceEmbedding(codes, rows, width, sub_dim=width // 3, padding_idx=0, codes_stored=False)
    torch.manual_seed(0)
    nn.init.normal_(embedding.weight, std=0.02)
    own = decoder(embedding)
    nn.init.normal_(own.bias)
    hidden, tokens = scale * torch.randn(32, width), torch.randint(1, vocab_size, (32,))
    with torch.no_grad():
        logits = hidden.double() @ embedding.materialise().double().T + own.bias
        expected = F.cross_entropy(logits, tokens, reduction="none").float()
        torch.testing.assert_close(own(hidden, own.table(embedding), tokens), expected, rtol=1e-5, atol=1e-4)


def test_the_head_is_that_of_bert():
    made, rows = learner(), ids()
    shown, columns, _ = made.hidden(rows, ROWS, STEP)
    head, bert = made.heads[0], BertForMaskedLM(made.encoder.config).eval()
    bert.bert.load_state_dict(made.encoder.state_dict(), strict=False)
    theirs = bert.cls.predictions
    theirs.transform.dense.load_state_dict(head.dense.state_dict())
    theirs.transform.LayerNorm.load_state_dict(head.norm.state_dict())
    theirs.decoder.weight, theirs.decoder.bias = made.embedding.weight, head.decoder.bias
    logits = bert(shown, attention_mask=torch.ones_like(rows)).logits
    losses = F.cross_entropy(logits.flatten(0, 1), rows.flatten(), reduction="none").view_as(rows)
    ours = made(input_ids=rows, rows=ROWS, step=STEP).logits
    torch.testing.assert_close(ours, losses.gather(1, columns).mean(1), rtol=1e-5, atol=1e-5)


def test_fifteen_percent_of_each_row_are_hidden_and_special_tokens_never():
    made = learner()
    rows = ids(128)[:1].repeat(2000, 1)
    rows[:, 40:50] = 3
    shown, columns, counts = made.hidden(rows, torch.arange(2000), STEP)
    assert columns.shape == (2000, round(0.15 * 126)) and counts.all()
    assert all(len(set(row)) == len(row) for row in columns.tolist())
    own, new = rows.gather(1, columns), shown.gather(1, columns)
    assert not torch.isin(own, made.special).any()
    assert (shown != rows).sum() == (new != own).sum()  # nothing else changes
    masked = (new == made.mask).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.01) and (new == own).float().mean().item() == pytest.approx(
        0.1, abs=0.01
    )
    replaced = new[(new != own) & (new != made.mask)]
    assert len(replaced.unique()) > 0.99 * VOCAB  # any token stands in
    places = torch.bincount(columns.flatten(), minlength=128)
    text = ~torch.isin(rows[0], made.special)
    assert not places[~text].any()
    np.testing.assert_allclose(places[text] / 2000, 19 / 116, atol=0.05)  # any place is hidden


def test_masks_are_drawn_anew_by_step_and_row_and_depend_on_nothing_else():
    made, rows = learner(), ids()

    def places(*numbers: int, step: int = 3, of: MaskedRows = made) -> list[list[int]]:
        _, columns, _ = of.hidden(
            rows[:1].repeat(len(numbers), 1), torch.tensor(numbers), torch.tensor([step])
        )
        return [sorted(row) for row in columns.tolist()]

    assert places(5, 6, 9)[1] == places(6)[0] != places(7)[0]
    assert places(6) != places(6, step=4)
    other = MaskedRows(made.encoder, tokenizer(), seed=1)
    assert places(6, of=other) != places(6)
    assert places(6, of=other, step=masked_rows.VALIDATION) == places(6, step=masked_rows.VALIDATION)


def test_a_row_of_nearly_only_special_tokens_counts_what_it_has():
    made, rows = learner(), ids()
    rows[1], rows[1, 4] = 3, 17
    shown, columns, counts = made.hidden(rows, ROWS, STEP)
    assert counts[1].sum() == 1 and columns[1][counts[1]].item() == 4
    assert (shown[1] != rows[1]).sum() <= 1
    assert made(input_ids=rows, rows=ROWS, step=STEP).logits.isfinite().all()
