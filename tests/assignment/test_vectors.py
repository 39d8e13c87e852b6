"""Token vectors against a slow loop over transformers' own hidden states, one sequence at a time."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from bench import store
from bench.assignment import vectors
from bench.assignment.vectors import token_vectors, vectors_key
from bench.runs.execute import run
from bench.settings.compose import compose_config

WORDS = ["a", "dog", "cat", "sleeps", "runs", "tree", "red", "never"]
TEXTS = ["a dog sleeps", "a cat runs a tree", "dog", "", "a red cat sleeps a dog runs tree red", "tree tree"]
VOCAB = 16  # more rows than the tokenizer has words
SHAPE = {"vocab_size": VOCAB, "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2,
         "intermediate_size": 16}  # fmt: skip
CONFIGS = {
    "bert": (BertConfig(**SHAPE, pad_token_id=0), ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]),
    "roberta": (RobertaConfig(**SHAPE, pad_token_id=1, max_position_embeddings=40), ["<s>", "<pad>", "</s>", "<unk>"]),
    "xlm-r": (XLMRobertaConfig(**SHAPE, pad_token_id=1, max_position_embeddings=40), ["<s>", "<pad>", "</s>", "<unk>"]),
    "distilbert": (DistilBertConfig(vocab_size=VOCAB, dim=8, n_layers=4, n_heads=2, hidden_dim=16, pad_token_id=0),
                   ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]),
    "albert": (AlbertConfig(**SHAPE, embedding_size=6, pad_token_id=0), ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]),
}  # fmt: skip


def pair(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    config, special = CONFIGS[name]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    bos = name in ("roberta", "xlm-r")
    cls, pad, sep = special[:3] if bos else (special[1], special[0], special[2])
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=special[3]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])]
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    return model, PreTrainedTokenizerFast(tokenizer_object=backend, cls_token=cls, sep_token=sep, pad_token=pad,
                                          unk_token=special[3], model_max_length=32)  # fmt: skip


def slow(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], layer: int
) -> np.ndarray:
    """Return the mean state of each token's occurrences, or its state alone, computed one sequence at a time."""
    states: dict[int, list[torch.Tensor]] = {}

    def hidden(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]

    for text in texts:
        ids = tokenizer(text)["input_ids"]
        for token, state in zip(ids, hidden(ids), strict=True):
            states.setdefault(token, []).append(state)
    for token in range(VOCAB):
        if token not in states:
            states[token] = [hidden([tokenizer.cls_token_id, token, tokenizer.sep_token_id])[1]]
    return torch.stack([torch.stack(states[token]).mean(0) for token in range(VOCAB)]).numpy()


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_vectors_are_means_over_occurrences_in_the_middle_layer(name: str) -> None:
    model, tokenizer = pair(name)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    found = token_vectors(model, tokenizer, iter(TEXTS), batch_size=2)
    assert model.training and torch.get_num_threads() == threads
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    # No layer is missing.
    assert len(model(torch.tensor([[4, 5]]), output_hidden_states=True).hidden_states) == 5
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow(model, tokenizer, TEXTS, 2), atol=1e-5)


def test_layers_above_are_not_computed() -> None:
    model, tokenizer = pair("bert")
    called = []
    for layer in model.encoder.layer:
        layer.register_forward_hook(lambda layer, *_: called.append(layer))
    token_vectors(model, tokenizer, TEXTS, batch_size=4)
    assert set(called) == set(model.encoder.layer[:2])


def test_budget_goes_to_texts_with_new_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = pair("bert")
    texts = ["a dog", "a dog", "a dog", "red tree", "a dog"]  # 4 tokens each
    monkeypatch.setattr(vectors, "BUDGET", 14)
    found = token_vectors(model, tokenizer, texts, batch_size=4)
    np.testing.assert_allclose(found, slow(model, tokenizer, ["a dog", "red tree", "a dog"], 2), atol=1e-5)


def test_long_texts_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = pair("bert")
    monkeypatch.setattr(vectors, "CONTEXT", 4)
    found = token_vectors(model, tokenizer, ["a dog sleeps never"], batch_size=4)
    np.testing.assert_allclose(found, slow(model, tokenizer, ["a dog"], 2), atol=1e-5)


def test_key_follows_what_decides_the_vectors_only() -> None:
    model, _ = pair("bert")
    key = vectors_key(model, "rules", TEXTS)
    classifier = AutoModelForSequenceClassification.from_config(CONFIGS["bert"][0])
    classifier.base_model.load_state_dict(model.state_dict())
    classifier.base_model.pooler.dense.weight.data.zero_()
    assert vectors_key(classifier, "rules", TEXTS) == key
    assert vectors_key(model, "rules", TEXTS[1:]) != key
    assert vectors_key(model, "others", TEXTS) != key
    assert vectors_key(model, "rules", ["".join(TEXTS)]) != key
    model.encoder.layer[0].attention.self.query.weight.data[0, 0] += 1
    assert vectors_key(model, "rules", TEXTS) != key


def test_codes_of_all_sizes_share_vectors_that_are_computed_once(tiny, tmp_path):
    def codes(cache, subspaces):
        asked = [
            "assignment=pq",
            "assignment.vectors=context",
            "embedding.rows=8",
            f"cache_dir={tmp_path}/{cache}",
        ]
        record = run(compose_config([*tiny, *asked, f"embedding.subspaces={subspaces}"]))
        assert record["status"] == "ok", record["error"]
        return record["fit"]["codes_sha256"]

    codes("shared", 3)
    (file,) = (tmp_path / "shared" / "vectors").iterdir()
    expected = codes("fresh", 2)
    (again,) = (tmp_path / "fresh" / "vectors").iterdir()
    assert again.name == file.name and again.read_bytes() == file.read_bytes()

    # Other vectors in the file give other codes, as they are read from there.
    store.save_array(store.load_array(file)[::-1].copy(), file)
    assert codes("shared", 2) != expected
