"""Options that take a value of their own."""

from collections.abc import Sequence

from bench.errors import ConfigError


def option(arguments: Sequence[str], name: str, hint: str) -> tuple[str | None, list[str]]:
    """Return the value of the option, written `name value` or `name=value` (None without it), and the other arguments."""
    given = list(arguments)
    at = next((at for at, word in enumerate(given) if word == name or word.startswith(f"{name}=")), None)
    if at is None:
        return None, given
    if given[at] != name:
        return given[at].partition("=")[2], [*given[:at], *given[at + 1 :]]
    if at == len(given) - 1:
        raise ConfigError(f"{name} has no value: {hint}.")
    return given[at + 1], [*given[:at], *given[at + 2 :]]
