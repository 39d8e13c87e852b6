"""Numbers and names as the page's texts show them; a number and its unit are never parted (U+00A0)."""

from collections.abc import Mapping
from typing import Any

from bench.report.names import Mark

UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def size_text(count: float) -> str:
    """Return a number of bytes with three figures, such as "1.19 MB"."""
    unit, factor = next((pair for pair in UNITS if count >= pair[1]), UNITS[-1])
    value = count / factor
    return f"{value:.{0 if unit == 'B' or value >= 100 else 1 if value >= 10 else 2}f}\u00a0{unit}"


def percent_text(share: float) -> str:
    """Return a share with one decimal, such as "97.5 %", or with two where one decimal would give 100.0."""
    return f"{100 * share:.{2 if 0.9995 <= share < 1 else 1}f}\u00a0%"


def model_text(row: Any, words: Mapping[str, Any]) -> str:
    """Return the model's name, and what its weights are where they are not the pretrained ones."""
    return str(words["weights"].get(row["weights"], "{model}")).format(model=row["model"])


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
