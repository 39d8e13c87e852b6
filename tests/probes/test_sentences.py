"""What an encoder's vectors are worth: similar pairs, translations that are found, and what is measured on."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench.errors import BenchError, DataError
from bench.probes import sentences
from bench.settings.schema import DataConfig
from tests.support.commands import ROOT

CPU = torch.device("cpu")
ENGLISH = ["red", "blue white", "black red", "green"]
PAIRS = {
    "sentence1": ["red", "green house", "red blue", "white", "black"],
    "sentence2": ["red", "green", "red green", "black", "white red black"],
    "label": [5.0, 4.1, 2.0, 0.5, 1.0],
}


class Words(torch.nn.Module):
    """The least encoder there is: how often a text holds each token, as a vector of length 1."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: torch.Tensor
    ) -> SimpleNamespace:
        counts = torch.zeros(len(input_ids), 30522).scatter_add_(1, input_ids, attention_mask.float())
        counts[:, 100:104] = 0  # [UNK], [CLS], [SEP], [MASK]
        return SimpleNamespace(sentence_embedding=torch.nn.functional.normalize(counts, dim=-1))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


def written(root: Path, languages: dict[str, Sequence[str]], **labels: list[int]) -> DataConfig:
    """Write each premise with three hypotheses for each language, and the STS-B pairs."""
    for language, premises in languages.items():
        rows = {
            "premise": [premise for premise in premises for _ in range(3)],
            "hypothesis": ["it is"] * 3 * len(premises),
            "label": labels.get(language, [0, 1, 2] * len(premises)),
        }
        (root / "xnli" / language).mkdir(parents=True)
        pq.write_table(pa.table(rows), root / "xnli" / language / "test.parquet")
    (root / "glue/stsb").mkdir(parents=True)
    pq.write_table(
        pa.table(PAIRS | {"label": pa.array(PAIRS["label"], pa.float32())}),
        root / "glue/stsb/validation.parquet",
    )
    return DataConfig(root=str(root))


def test_translations_are_found_both_ways_and_the_same_translation_counts(tokenizer, tmp_path):
    """In German the last two are exchanged; "red blue" is nearest to "red"; in Turkish the first two are the same."""
    premises = {
        "en": ENGLISH,
        "de": ["red", "blue white", "green", "black red"],
        "fr": ["red", "red blue", "red black black", "green"],
        "tr": ["blue red", "blue red", "black", "green"],
    }
    read = sentences.read(written(tmp_path, premises))
    assert read.premises == premises
    found = sentences.measure(Words(), tokenizer, read, "", 32, CPU)["xnli"]
    assert found["languages"] == {
        "de": {"from_en": 0.5, "to_en": 0.5},
        "fr": {"from_en": 1.0, "to_en": 0.75},
        "tr": {"from_en": 1.0, "to_en": 0.75},
    }
    assert (found["premises"], found["from_en"], found["to_en"]) == (4, 2.5 / 3, 2 / 3)


def test_similarity_is_spearmans_correlation_of_the_cosine_with_the_label(tokenizer, tmp_path):
    read = sentences.read(written(tmp_path, {}))
    measured = sentences.measure(Words(), tokenizer, read, "", 32, CPU)
    expected = [1, 0.5**0.5, 0.5, 0, 3**-0.5]
    assert measured.keys() == {"stsb"} and measured["stsb"]["pairs"] == 5
    assert measured["stsb"]["spearmanr"] == pytest.approx(spearmanr(expected, PAIRS["label"]).statistic)


def test_the_prefix_comes_before_each_text_and_long_texts_are_cut(tokenizer, tmp_path):
    seen = list[int]()

    class Seeing(Words):
        def forward(self, input_ids, **inputs):
            seen.extend([*input_ids[:, 1].tolist(), input_ids.shape[1]])
            return super().forward(input_ids, **inputs)

    read = sentences.read(written(tmp_path, {}))
    sentences.measure(Seeing(), tokenizer, read, "query: ", 4, CPU)
    assert set(seen) == {tokenizer.convert_tokens_to_ids("query"), 4}


def test_vectors_come_in_the_order_of_the_texts(tokenizer):
    texts = [" ".join(["red"] * length) + f" {length}" for length in (3, 90, 1, 40, *range(5, 80))]
    together = sentences.embed(Words(), tokenizer, texts, 128, CPU)
    alone = torch.cat([sentences.embed(Words(), tokenizer, [text], 128, CPU) for text in texts])
    torch.testing.assert_close(together, alone)


def test_what_is_missing_is_left_out_and_nothing_at_all_is_refused(tokenizer, tmp_path):
    read = sentences.read(written(tmp_path / "pairs", {"de": ENGLISH}))
    assert read.premises == {} and read.pairs is not None and len(read.pairs) == 5
    data = written(tmp_path / "texts", {"en": ENGLISH, "sw": ENGLISH})
    (tmp_path / "texts/glue/stsb/validation.parquet").unlink()
    assert sentences.measure(Words(), tokenizer, sentences.read(data), "", 32, CPU).keys() == {"xnli"}
    (tmp_path / "texts/xnli/sw/test.parquet").unlink()
    with pytest.raises(DataError, match=r"--evaluate finds neither .* set data\.root"):
        sentences.read(data)


def test_rows_in_another_order_are_no_translations(tmp_path):
    data = written(tmp_path, {"en": ENGLISH, "de": ENGLISH}, de=[0, 2, 1] * 4)
    with pytest.raises(DataError, match=r"test rows in 'de' have other labels than the English ones"):
        sentences.read(data)


def test_vectors_that_are_not_finite_are_refused(tokenizer):
    class Broken(Words):
        def forward(self, **inputs):
            return SimpleNamespace(sentence_embedding=super().forward(**inputs).sentence_embedding / 0)

    with pytest.raises(BenchError, match="NaN or infinite"):
        sentences.embed(Broken(), tokenizer, ["red"], 8, CPU)


def test_xnli_has_1670_premises_in_15_languages():
    folder = Path(os.environ.get("BENCH_DATA_ROOT", ROOT.parent / "shared" / "data"))
    if not (folder / "xnli").is_dir():
        pytest.skip("no real XNLI data: set BENCH_DATA_ROOT to its folder")
    read = sentences.read(DataConfig(root=str(folder)))
    assert len(read.premises) == 15 and {len(texts) for texts in read.premises.values()} == {1670}
    assert next(iter(read.premises)) == "en" and len(set(read.premises["en"])) == 1670
    assert read.pairs is not None and len(read.pairs) == 1500
