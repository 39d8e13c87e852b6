"""Numbers of a configuration: the limits of each stand with its key, and a value outside them is refused."""

import math
import operator
from dataclasses import field, fields, is_dataclass
from functools import cache
from typing import Any

from bench.errors import ConfigError

LIMITS = {
    "above": (operator.gt, "greater than"),
    "least": (operator.ge, "at least"),
    "most": (operator.le, "at most"),
}


def number(default: Any, **limits: float) -> Any:
    """Return a field for a number within `limits`, which LIMITS names; None passes."""
    return field(default=default, metadata=limits)


def seed() -> Any:
    """Return a field for a seed that NumPy's old generator takes, which scikit-learn and transformers use."""
    return number(0, least=0, most=2**32 - 1)


def check_numbers(node: Any, key: str = "") -> None:
    """Raise ConfigError for a number in `node`, or below it, that is not finite or outside the limits of its key."""
    if isinstance(node, float) and not math.isfinite(node):  # no comparison with a limit would refuse NaN
        raise ConfigError(f"{key} ({node}) must be a finite number.")
    if is_dataclass(node):
        for name, limits in _limits(node.__class__):
            value, full = getattr(node, name), f"{key}.{name}" if key else name
            check_numbers(value, full)
            if value is not None and not all(holds(value, bound) for holds, _, bound in limits):
                words = " and ".join(f"{words} {bound}" for _, words, bound in limits)
                raise ConfigError(f"{full} ({value}) must be {words}.")
    elif isinstance(node, dict | list):
        parts = node.items() if isinstance(node, dict) else enumerate(node)
        for part, value in parts:
            check_numbers(value, f"{key}.{part}" if isinstance(node, dict) else f"{key}[{part}]")


@cache
def _limits(kind: type) -> list[tuple[str, list[tuple[Any, str, float]]]]:
    """Return the fields of a dataclass, each with its limits: a comparison, its words and the bound."""
    return [
        (item.name, [(*LIMITS[name], bound) for name, bound in item.metadata.items() if name in LIMITS])
        for item in fields(kind)
    ]
