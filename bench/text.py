"""Text for Markdown and for file names, safe whatever the records' names hold."""

import hashlib
import html
import re
from collections.abc import Iterable, Sequence


def one_line(text: object) -> str:
    """Return the text with every run of white space and control characters as one space."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text)).strip()


def escape(text: object) -> str:
    """Return the text as Markdown that shows it literally, in a table's cell too."""
    shown = re.sub(r"([\\`*\[\]|~$])", r"\\\1", html.escape(one_line(text), quote=False))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", shown)  # underscores within a word are no emphasis


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: int = 0) -> str:
    """Return a Markdown table of cells that are already escaped; the last `numeric` columns are set to the right."""
    left = len(header) - numeric
    lines = [header, ["---"] * left + ["--:"] * numeric, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def slug(*names: str) -> str:
    """Return a file name's stem of letters, digits, dots and dashes; a name that had to change also gets a digest."""
    parts = []
    for name in names:
        safe = re.sub(r"[^a-z0-9._]+", "-", name)[:60].strip(".-")
        parts.append(
            safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".strip("-")
        )
    return "--".join(parts)  # no part holds two dashes, so different names give different stems
