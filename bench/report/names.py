"""Names for people: labels of configurations, kinds of embedding, and marks of data that are not official."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.settings.choices import RENAMED_CHOICES
from bench.store import digest

LANGUAGES = yaml.safe_load(
    (Path(__file__).parents[1] / "tasks" / "languages.yaml").read_text(encoding="utf-8")
)
"""What languages are called: the reader's language -> code -> name."""
MODELS = Path(__file__).resolve().parents[2] / "conf" / "model"
OFFICIAL_SPLIT = re.compile(r"(train|dev|validation|test)(_matched|_mismatched)?")
SETTINGS = {  # how a label shows a setting; any other setting is shown as key=value
    "rank": "r={}",
    "keep_dense": "{} rows kept",
    "code_rows": "{} code rows",
    "gain": "gains",
    "rotation": "rotated",
    "table_dtype": "{}",
    "bits": "int{}",
    "group": "group {}",
    "frequency_power": "weighted {:g}",
}


PLAIN = {  # of kinds, for figures and people who know no method by its short name; `int8` and `int4` are made from the bits
    "dense": "dense",
    "sequential": "codes in order",
    "random": "random codes",
    "contextual": "codes by context",
    "pq": "product quantisation",
    "residual": "residual quantisation",
    "codebook": "one codebook",
    "low_rank": "low rank",
    "trimmed": "trimmed vocabulary",
    "truncated": "fewer dimensions",
    "quotient_remainder": "quotient-remainder",
    "mean": "one vector for all",
    "hash_only": "random signs alone",
}


# What a model's weights are, where they are not the pretrained ones of a file.
HERE, UNTRAINED = "pretrained here", "none"


class Mark(NamedTuple):
    """A fact that keeps a task's data from being official; `str` gives it in English."""

    kind: str  # synthetic | train | evaluated
    split: str = ""
    rows: int | None = None  # rows used
    total: int | None = None  # rows of the official split, or of the data at hand

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total else ""
        count = "" if self.rows is None else f" ({self.rows:,}{of} rows)"
        return {
            "synthetic": "synthetic",
            "train": f"{self.split}{count}",
            "evaluated": f"evaluated on {self.split}{count}",
        }[self.kind]


def marks_of(source: str, splits: dict[str, dict[str, Any]], limit: int | None) -> tuple[Mark, ...]:
    """Return what is not official about the data: generated, other splits, other numbers of rows, limited training rows."""
    marks = [Mark("synthetic")] if source == "generated" else []
    for role, part in sorted(splits.items(), key=lambda item: (item[0] != "train", item[0])):
        name, rows, official = part["split"], part.get("rows"), part.get("official_rows")
        most = part.get("max_train_examples") or (limit if role == "train" else None)
        used = rows if most is None else most if rows is None else min(rows, most)
        total = official or (rows if rows != used else None)
        limited = most is not None and (rows is None or rows >= most) and used != official
        unofficial = source != "generated" and not OFFICIAL_SPLIT.fullmatch(name)
        if limited or unofficial or (official is not None and used is not None and used != official):
            marks.append(Mark("train" if role == "train" else "evaluated", name, used, total))
    return tuple(marks)


def column_name(task: str, marks: tuple[str, ...]) -> str:
    """Return the task's name with what is not official about it."""
    return f"{task} [not official: {'; '.join(marks)}]" if marks else task


def suite_name(suite: str) -> str:
    """Return a suite's name, GLUE and XNLI in capitals."""
    return suite.upper() if suite in ("glue", "xnli") else suite


def language_name(code: str) -> str:
    """Return a language's English name; any other name, such as a task's, as it is."""
    return str(LANGUAGES["en"].get(code, code))


def known_as(model: str) -> str:
    """Return a model's name, with the present one behind a former one that its records have."""
    now = RENAMED_CHOICES.get(("model", model))
    return f"{model} ({now})" if now else model


@cache
def overlaps(model: str) -> dict[str, str]:
    """Return task -> what of its data the model was trained on, as the model's file in conf/model says; empty where it says nothing."""
    file = MODELS / f"{RENAMED_CHOICES.get(('model', model), model)}.yaml"
    if not file.is_file():
        return {}
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")).get("overlaps", {}))


def kind(config: dict[str, Any]) -> str:
    """Return what a chart's marks stand for: the method (the assignment for subspace embeddings), and a body of fewer bits."""
    part = (config["embedding"]["name"] == "subspace" and config.get("assignment")) or config["embedding"]
    return str(part["name"]) + (f", {config['body']} body" if "body" in config else "")


def plain_name(config: dict[str, Any]) -> str:
    """Return what a person calls the method, without its settings, such as "product quantisation" or "int4"."""
    name, *body = kind(config).partition(",")
    if name == "quantised":
        name = f"int{config['embedding'].get('bits', 8)}"
    return PLAIN.get(name, name.replace("_", " ")) + "".join(body)


def short_label(config: dict[str, Any], width: int | None) -> str:
    """Return a name such as "pq f=8 Q=64 sum + distil, int8 body", which holds only what differs from the defaults."""
    embedding = dict(config["embedding"])
    method, (name, *body) = embedding.pop("name"), kind(config).partition(",")
    words = [name]
    if method != "dense":
        f, rows, sub_dim = (embedding.pop(key, None) for key in ("subspaces", "rows", "sub_dim"))
        compose, init = embedding.pop("compose", "concat"), embedding.pop("init", "fitted")
        default = width if compose == "sum" else width // f if width and f else None
        words += [f"{symbol}={value}" for symbol, value in (("f", f), ("Q", rows)) if value is not None]
        if compose != "concat":
            words.append(compose)
        if width and sub_dim not in (None, default):
            words.append(f"s={sub_dim}")
        if init != "fitted" and config["model"].get("weights") != UNTRAINED:  # whose tables are always drawn
            words.append(f"{init} init")
        for key, value in sorted(embedding.items()):
            if key not in ("version", "corpus"):
                words.append(SETTINGS.get(key, f"{key}={{}}").format(value))
    recovery = (config.get("recovery") or {}).get("name", "none")
    if recovery != "none":
        words.append(f"+ {recovery}")
    if (config.get("training") or {}).get("teacher", "none") != "none":
        words.append("+ teacher")
    return " ".join(words) + "".join(body)


def weights_text(weights: str) -> str:
    """Return what a model's weights are, such as "4-bit weights"; nothing for the pretrained ones of a file."""
    words = {"pretrained": "", HERE: HERE, UNTRAINED: "no pretraining"}
    return words.get(weights, f"{weights} weights")


def embedding_id(config: dict[str, Any]) -> str:
    """Return a digest of what decides the compressed embedding before training: model, method, assignment."""
    return digest([config["model"], config["embedding"], config.get("assignment")])


def embeddings_digest(configs: Iterable[dict[str, Any]]) -> str:
    """Return a digest of several embeddings: part of the name of a file that compares them."""
    return digest(sorted(map(embedding_id, configs)))[:8]
