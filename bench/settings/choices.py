"""Groups whose choices have different keys: a class for each choice, and the error for a key that the choice does not have."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from bench.errors import ConfigError, unknown

CHOICES: dict[str, dict[str, type["Choice"]]] = defaultdict(dict)  # group -> name -> class
REMOVED = {
    "embedding.rotation": "it was removed, as no record showed that it helps",
    "embedding.gain": "it was removed: embedding=codebook always has gains, and the other methods have none",
    "assignment.layer": "it was removed: vectors in context always come from the middle layer",
    "assignment.iterations": "it was removed: embedding codes of assignment=contextual always take 4 rounds",
    "training.eval_batch_size": "evaluations count tokens now: training.eval_batch_tokens (512 rows of 128 tokens are 65536)",
    "recovery.frozen_steps": "it was removed: a recovery always trains the whole model",
}
RENAMED = {"cost": "price"}  # groups
RENAMED_CHOICES = {("model", "minilm"): "all-minilm-l6-v2"}  # (group, former name) -> name


@dataclass
class Choice:
    """A choice of a configuration group. A subclass with a `name` is offered under that name, and its fields are its keys."""

    choice_of: ClassVar[str] = ""
    name: str = "???"

    def __init_subclass__(cls) -> None:
        if cls.name != "???":
            CHOICES[cls.choice_of][cls.name] = cls


def keys(kind: type[Choice]) -> set[str]:
    """Return the keys that the choice has."""
    return {field.name for field in fields(kind)}


def named(group: str, values: Mapping[str, Any]) -> "Choice":
    """Return the choice of the group that `values["name"]` names. Values of keys that it does not have are left out."""
    kind = CHOICES[group][values["name"]]
    return kind(**{key: values[key] for key in keys(kind) & values.keys()})


def others(chosen: Choice) -> set[str]:
    """Return the keys that only other choices of the group have."""
    return set().union(*map(keys, CHOICES[chosen.choice_of].values())) - keys(type(chosen))


def unknown_choice(group: str, name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that a group does not have: its present name, or the most similar one."""
    if now := RENAMED_CHOICES.get((group, name)):
        return ConfigError(f"{group}={name} is called {group}={now} now.")
    return ConfigError(unknown(group, name, known))


def unknown_key(key: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a key that does not exist, with the most similar one. There are too many to list."""
    return ConfigError(unknown("key", key, known).split(" Available:")[0])


def refused(chosen: Choice, key: str, given: str | None) -> ConfigError:
    """Return the error for a key that the chosen class does not have: the choices that have it, or the most similar key."""
    group, kinds = chosen.choice_of, CHOICES[chosen.choice_of]
    users = sorted(name for name, kind in kinds.items() if key in keys(kind))
    if not users:
        return unknown_key(
            f"{group}.{key}", {f"{group}.{name}" for kind in kinds.values() for name in keys(kind)}
        )
    return ConfigError(
        f"{group}.{key} ({given}) is not used by {group}={chosen.name}, only by {', '.join(users)}: leave it out, or write "
        f"'?{group}.{key}={given}' to set it only where it is used."
    )
