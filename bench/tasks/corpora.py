"""Text without labels, named in a line: "task", splits of tasks, or a file."""

import re
from dataclasses import replace

from bench.settings.schema import DataConfig
from bench.store import sha256
from bench.tasks.data import data_identity, load_split
from bench.tasks.specs import read_task
from bench.tasks.text import passages as lines_of


def _splits(corpus: str) -> list[tuple[str, str]]:
    """Return (task, split) pairs of "mrpc:train+qnli:train_subset", or [] for a file's name."""
    parts = re.findall(r"(\w+):([\w\[\]%]+)(?:\+|$)", corpus)
    return parts if "+".join(f"{task}:{split}" for task, split in parts) == corpus else []


def passages(corpus: str, data: DataConfig) -> list[str]:
    """Return the texts of the splits, or the lines of the file, in order and without repetition.

    Raises DataError for a missing task or split, and for a file that cannot be read or has no text.
    """
    if not (splits := _splits(corpus)):
        return lines_of(corpus)
    texts: dict[str, None] = {}
    for name, split in splits:
        task = read_task(name)
        rows = load_split(replace(task, splits={"train": split}), data, "train", labels=False)
        texts |= dict.fromkeys(text for column in task.columns for text in rows[column])
    return list(texts)


def identity(corpus: str, data: DataConfig) -> str:
    """Return "task", or the SHA-256 of the data that the texts are read from."""
    if corpus == "task":
        return corpus
    if splits := _splits(corpus):
        digests = [
            data_identity(replace(read_task(name), splits={"train": split}), data, ["train"])
            for name, split in splits
        ]
        return sha256("\n".join(digests))
    return sha256("\n".join(lines_of(corpus)))
