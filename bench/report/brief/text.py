"""Numbers and names put into the page's texts; a number and its unit are never parted (U+00A0)."""

import re
from collections.abc import Mapping

UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def fill(text: str, values: Mapping[str, object]) -> str:
    """Return the text with every {name} replaced, as brief.js does it; values are never searched for names."""
    return re.sub(r"\{(\w+)\}", lambda match: str(values[match[1]]), text)


def size_text(count: float) -> str:
    """Return a number of bytes with three figures, such as "1.19 MB"."""
    unit, factor = next((pair for pair in UNITS if count >= pair[1]), UNITS[-1])
    value = count / factor
    return f"{value:.{0 if unit == 'B' or value >= 100 else 1 if value >= 10 else 2}f}\u00a0{unit}"


def percent_text(share: float) -> str:
    """Return a share with one decimal, such as "97.5 %"; two where one would say 100.0."""
    return f"{100 * share:.{2 if 0.9995 <= share < 1 else 1}f}\u00a0%"


def signed(value: float, digits: int = 2) -> str:
    """Return the number with its sign, a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")
