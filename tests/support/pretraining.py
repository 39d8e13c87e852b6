"""A model of nothing but an architecture and a tokenizer of words, made here, and a text that it can learn."""

import random
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = "the film is a joy dull long evening they sing in town people walk river house small old green never"
WORDS = TEXT.split(" ")
VOCAB = 300


def tokenizer(padding: int = 0) -> PreTrainedTokenizerFast:
    """Return a tokenizer of WORDS and fillers whose padding token has the id `padding`."""
    special = SPECIAL[1:]
    special.insert(padding, "[PAD]")
    fillers = [f"word{number}" for number in range(VOCAB - len(special) - len(WORDS))]
    ids = {word: number for number, word in enumerate([*special, *WORDS, *fillers])}
    made = Tokenizer(WordLevel(ids, "[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(word, ids[word]) for word in ("[CLS]", "[SEP]")],
    )
    names = {f"{word[1:-1].lower()}_token": word for word in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def text(path: Path, passages: int = 400) -> Path:
    """Write passages in which each word is followed by one of two others, and return the path."""
    draw, lines = random.Random(0), []
    for _ in range(passages):
        words = [draw.randrange(len(WORDS))]
        while len(words) < draw.randint(4, 20):
            words.append((3 * words[-1] + draw.choice((1, 8))) % len(WORDS))
        lines.append(" ".join(WORDS[word] for word in words))
    path.write_text("\n".join(lines))
    return path


def overrides(folder: Path) -> list[str]:
    """Write tokenizer and text to the folder, and return the overrides of a run that takes about a second."""
    tokenizer().save_pretrained(folder / "tokenizer")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    return [
        "model=bert-small-6x384",
        "model.name=little",
        "model.source=local",
        f"model.path={folder}/tokenizer",
        "model.sha256=null",
        f"model.vocab_size={VOCAB}",
        "model.width=24",
        f"model.architecture.vocab_size={VOCAB}",
        *(f"model.architecture.{key}={value}" for key, value in sizes.items()),
        "task=lexical_sentiment",
        "training.max_steps=4",
        "training.batch_size=8",
        "training.max_train_examples=48",
        "device=cpu",
        "pretraining=masked_lm",
        f"pretraining.corpus={text(folder / 'text.txt')}",
        "pretraining.steps=24",
        "pretraining.batch_size=8",
        "pretraining.length=32",
        "pretraining.learning_rate=3e-3",
        f"results_dir={folder}/results",
        f"cache_dir={folder}/cache",
    ]
