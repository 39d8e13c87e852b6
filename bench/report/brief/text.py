"""Names as the page's texts show them."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.names import Mark, known_as

MOST_NAMES = 9


def model_text(row: Any, words: Mapping[str, Any]) -> str:
    """Return the model's name, and what its weights are where they are not the pretrained ones."""
    return str(words["weights"].get(row["weights"], "{model}")).format(model=known_as(row["model"]))


def mark_text(mark: Mark, words: Mapping[str, Any]) -> str:
    """Return what is not official about a task's data."""
    texts, counts = words["marks"], {"rows": f"{mark.rows or 0:,}", "total": f"{mark.total or 0:,}"}
    rows = "" if mark.rows is None else texts["part" if mark.total else "rows"].format(**counts)
    return str(texts[mark.kind].format(split=mark.split, rows=rows))


def reason_text(why: str, words: Mapping[str, Any]) -> str:
    """Return why there is no number; `why` comes from the score table, such as "not run" or "1 failed, 2 oom"."""
    if why in words["reasons"]:
        return str(words["reasons"][why])
    counts = [part.split() for part in why.split(", ")]
    texts = [words["counted"].format(count=n, status=words["statuses"][status]) for n, status in counts]
    return str(words["separator"]).join(texts)


def task_name(column: Mapping[Any, Any], words: Mapping[str, Any]) -> str:
    """Return what the page calls a task or, where the columns are languages, a language."""
    return str(words["languages"].get(column["task"], column["task"]))


def listed(names: Sequence[str], words: Mapping[str, Any]) -> str:
    """Return the names in a line, or their number where there are more than MOST_NAMES; brief.js does the same."""
    if len(names) > MOST_NAMES:
        return str(words["many"].format(count=len(names)))
    return str(words["separator"]).join(names)
