"""Text for Markdown and for file names, and numbers for people. Any character in a record's name is safe."""

import hashlib
import html
import re
from collections.abc import Iterable, Sequence

UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def one_line(text: object) -> str:
    """Return the text with each sequence of white space and control characters replaced by one space."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text)).strip()


def escape(text: object) -> str:
    """Return the text as Markdown that shows it literally, also in a table's cell."""
    shown = re.sub(r"([\\`*\[\]|~$])", r"\\\1", html.escape(one_line(text), quote=False))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", shown)  # underscores within a word are no emphasis


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: int = 0) -> str:
    """Return a Markdown table of escaped cells; the last `numeric` columns are aligned to the right."""
    left = len(header) - numeric
    lines = [header, ["---"] * left + ["--:"] * numeric, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def slug(*names: str) -> str:
    """Return the stem of a file name in letters, digits, dots and dashes. A name that has to change also gets a digest."""
    parts = []
    for name in names:
        safe = re.sub(r"[^a-z0-9._]+", "-", name)[:60].strip(".-")
        digest = hashlib.sha256(name.encode()).hexdigest()[:6]
        parts.append(safe if safe == name else f"{safe}-{digest}".strip("-"))
    return "--".join(parts)  # no part contains two dashes, so different names give different stems


def size_text(count: float) -> str:
    """Return a number of bytes with three figures, such as "1.19 MB"; the number and its unit are never parted (U+00A0)."""
    unit, factor = next((pair for pair in UNITS if count >= pair[1]), UNITS[-1])
    value = count / factor
    return f"{value:.{0 if unit == 'B' or value >= 100 else 1 if value >= 10 else 2}f}\u00a0{unit}"


def time_text(milliseconds: float) -> str:
    """Return a time, from a second on in seconds, such as "22.1 ms" and "1.67 s"; the number and its unit are never parted."""
    return f"{milliseconds:.1f}\u00a0ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f}\u00a0s"


def percent_text(share: float) -> str:
    """Return a share with one decimal, such as "97.5 %", or with two where one decimal would give 100.0."""
    return f"{100 * share:.{2 if 0.9995 <= share < 1 else 1}f}\u00a0%"


def amount(number: float) -> str:
    """Return a count in full, such as "14,860", and any other number with four digits that count."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.4g}"


def signed(number: float) -> str:
    """Return a change with one decimal and its sign, a true minus; no sign where it rounds to zero."""
    return f"{round(number, 1) + 0.0:+.1f}".replace("-", "−").replace("+0.0", "0.0")


def minus(number: float, digits: int = 1) -> str:
    """Return the number with a true minus sign, and without one where it rounds to zero."""
    return f"{round(number, digits) + 0.0:.{digits}f}".replace("-", "−")
