"""Options that take a value of their own."""

from collections.abc import Sequence

from bench.errors import ConfigError


def option(arguments: Sequence[str], name: str, hint: str) -> tuple[str | None, list[str]]:
    """Return the value that follows the option (None without it) and the other arguments."""
    given = list(arguments)
    if name not in given:
        return None, given
    at = given.index(name)
    if at == len(given) - 1:
        raise ConfigError(f"{name} has no value: {hint}.")
    return given[at + 1], [*given[:at], *given[at + 2 :]]
