"""A tiny backbone, and a measurement of it that takes a second."""

import pytest
from transformers import BertConfig, BertForSequenceClassification

from bench.models import architectures
from bench.settings.compose import compose_config

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 1000,
}


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setitem(
        architectures.ARCHITECTURES, "tiny", (BertForSequenceClassification, BertConfig, TINY)
    )


def config(folder, *others):
    return compose_config(
        [
            "perf.backbones=[tiny]",
            "perf.work=[training]",
            "perf.examples=16",
            "perf.batch_sizes=[8]",
            "perf.repeats=2",
            "perf.together=2",
            "perf.startup=false",
            "perf.layers=false",
            f"results_dir={folder}",
            *others,
        ]
    )
