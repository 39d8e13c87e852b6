"""Hydra: overrides in, a typed RunConfig out, and errors with the key, the value and a suggestion.

Hydra's grammar holds with one exception: the value of a text key is taken literally. `data.root=/data/R&D, 50% (a=b)` names
that folder. Three forms keep their meaning: `null` is no text, quotes around a whole value are removed, and OmegaConf resolves
`${...}`.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.errors import ConfigError
from bench.settings.choices import (
    CHOICES,
    REMOVED,
    RENAMED,
    Choice,
    keys,
    others,
    refused,
    unknown_choice,
    unknown_key,
)
from bench.settings.misfits import misfit
from bench.settings.numbers import check_numbers
from bench.settings.schema import RunConfig

CONF = Path(__file__).resolve().parents[2] / "conf"
QUOTED = re.compile(r"""(['"])(\\.|(?!\1)[^\\])*\1""", re.DOTALL)
ConfigStore.instance().store(name="schema", node=RunConfig)
for _group, _kinds in CHOICES.items():
    for _name, _kind in _kinds.items():
        ConfigStore.instance().store(group=_group, name=_name, node=_kind)


def choices(group: str) -> list[str]:
    """Return the names that a configuration group offers: its classes and the YAML files of conf/<group>/."""
    return sorted({*CHOICES.get(group, ()), *(path.stem for path in (CONF / group).glob("*.yaml"))})


@cache
def _groups() -> set[str]:
    return {*CHOICES, *(path.name for path in CONF.iterdir() if path.is_dir())}


@cache
def type_of(key: str) -> Any:
    """Return the type that the schema gives a key such as "task.splits.train", or None for a key that it does not have.

    A key of one choice of a group, such as "embedding.rank", has the same type in all choices that have it.
    """
    kind: Any = RunConfig
    for part in key.split("."):
        inner = get_type_hints(kind) if is_dataclass(kind) else {}
        if isinstance(kind, type) and issubclass(kind, Choice):
            for choice in CHOICES[kind.choice_of].values():
                inner |= get_type_hints(choice)
        kind = get_args(kind)[1] if get_origin(kind) is dict else inner.get(part)
    return kind


def in_hydras_grammar(override: str) -> str:
    """Return the override as Hydra needs it: the value of a text key in quotes, all others unchanged."""
    key, given, value = override.partition("=")
    if not given or type_of(key.lstrip("+")) not in (str, str | None):
        return override
    if value.lower() == "null" or QUOTED.fullmatch(value):
        return override
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return the error in a sentence of ours for an error of Hydra or OmegaConf."""
    if isinstance(error, YAMLError):
        where = getattr(error, "problem_mark", None)
        place = (
            f"{where.name}, line {where.line + 1}, column {where.column + 1}" if where else "a file of conf/"
        )
        return ConfigError(f"{place} is not valid YAML ({getattr(error, 'problem', error)}): correct it.")

    # An override without a key or a value, or a name that a group does not have: Hydra's text is long and suggests nothing.
    for override in overrides:
        key, given, value = override.partition("=")
        if not key:
            return ConfigError(f"'{override}' names no key: write <key>{override}.")
        if not given and not key.startswith("~"):
            return ConfigError(f"'{override}' has no value: write {override}=<value>.")
        if key in _groups() and value not in choices(key) and re.fullmatch(r"[\w./-]*", value):
            return unknown_choice(key, value, choices(key))
    text = f"{error} {error.__cause__ or ''}"

    # Several values where a run takes one.
    if match := re.search(r"Ambiguous value for argument '(.*)'|Sweep parameters '(.*)' requires", text):
        override = match[1] or match[2]
        key, _, value = override.partition("=")
        as_list = f"; a list is written {key}=[{value}]" if match[1] and key not in _groups() else ""
        return ConfigError(
            f"{override} names several values, but a run takes one: `python -m bench run --multirun {override}` runs each, "
            f"and a grid in conf/sweep/ makes a sweep of them{as_list}."
        )

    # A key that the configuration does not have.
    if match := re.search(r"Could not override '([^']+)'", text):
        return _absent(match[1], overrides)

    # A file of conf/ with a key or a value that its class cannot hold.
    match = re.search(r"In '(\w+)/([^']+)': \w+ raised while composing", text)
    if match and (wrong := _misfit(match[1], match[2])):
        return wrong

    # A value of another type.
    if match := re.match(r"Error merging override \+*([\w.]+)=(.*)", str(error)):
        reason = str(error.__cause__ or error).splitlines()[0].removesuffix(".")
        return ConfigError(f"{match[1]} ({match[2]}) has the wrong type: {reason}.")

    # Anything else, without the addresses and the stack that Hydra adds.
    lines = map(str.strip, text.split("full_key")[0].splitlines())
    words = " ".join(line for line in lines if line and "https:" not in line)
    return ConfigError(f"The configuration cannot be composed: {words}")


def _misfit(group: str, name: str | None) -> ConfigError | None:
    """Return what is wrong with a group's file, or None. Choices with keys of their own have classes for files."""
    kind, file = type_of(group), CONF / group / f"{name}.yaml"
    has_file = (
        isinstance(kind, type) and is_dataclass(kind) and not issubclass(kind, Choice) and file.is_file()
    )
    return misfit(file, kind) if has_file else None


def _absent(key: str, overrides: Sequence[str]) -> ConfigError:
    """Return the error for an override of a key that the configuration does not have."""
    value = next((o.partition("=")[2] for o in overrides if o.partition("=")[0] == key), "")
    group, _, inner = key.partition(".")
    part = getattr(_chosen(overrides), group, None)
    if group in RENAMED:
        return ConfigError(f"{key} ({value}) is called {key.replace(group, RENAMED[group], 1)} now.")
    if key in REMOVED:
        return ConfigError(f"{key} ({value}) is no key any more: {REMOVED[key]}. Leave it out.")
    if isinstance(part, Choice) and inner.partition(".")[0] not in keys(type(part)):
        return refused(part, inner, value)
    if dict in (get_origin(type_of(key)), get_origin(type_of(key.rpartition(".")[0]))):
        return ConfigError(
            f"{key} is not there yet, or {value} names a key that it does not have: correct the name, or add it with a plus, as in "
            f"+{key}={value}."
        )
    return unknown_key(key, _keys(_schema(RunConfig)))


def _keys(node: Any, prefix: str = "") -> set[str]:
    """Return the dotted keys of a configuration and of those below it."""
    names = set()
    for key in node:
        names.add(f"{prefix}{key}")
        if isinstance(node._get_node(key), DictConfig) and not node._is_none():
            names |= _keys(node._get_node(key), f"{prefix}{key}.")
    return names


def typed(config: DictConfig, chosen: Mapping[str, str | None]) -> RunConfig:
    """Return the composed configuration as a RunConfig that notes what was `chosen` of each group.

    Raises ConfigError for a value that is missing or not within its limits, and for a key that '+' added and the schema does not have.
    """
    try:
        run = cast(RunConfig, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        groups = sorted({key.partition(".")[0] for key in OmegaConf.missing_keys(config)})
        wrong = next(filter(None, (_misfit(group, chosen.get(group)) for group in groups)), None)
        incomplete = f"The configuration is incomplete: {str(error).splitlines()[0]}."
        raise wrong or ConfigError(incomplete) from error
    if extra := _extra(run):
        raise unknown_key(extra, _keys(_schema(RunConfig)))
    check_numbers(run)
    run.chosen = {group: name for group, name in chosen.items() if group in _groups() and name}
    return run


def _extra(node: Any) -> str | None:
    """Return a key that was added to the configuration and that no code would read, or None."""
    for key, value in vars(node).items():
        if key not in node.__dataclass_fields__:
            return str(key)
        if is_dataclass(value) and (inner := _extra(value)):
            return f"{key}.{inner}"
    return None


def compose_config(overrides: Sequence[str]) -> RunConfig:
    """Return the run that `overrides` describe, as `python -m bench run <overrides>` would start it.

    An override that begins with a question mark, such as ?recovery.steps=10, holds only where the chosen method, assignment,
    recovery or launcher has the key: for sweeps over several. Raises ConfigError with the key, the value and a suggestion.

    Hydra composes each choice of groups once. Single values are then set on a copy, so that a plan of thousands of runs takes
    seconds. Overrides with anything more than a single value, or with a mistake, go to Hydra as a whole: it alone refuses.
    """
    overrides = _where_used(overrides)
    try:
        run = _quickly(overrides) or _copied(_composed(tuple(map(in_hydras_grammar, overrides))))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # ValueError comes from a group that is set to null or to a number.
        raise explain(error, overrides) from error
    check_numbers(run)
    return run


def _where_used(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without question marks, and without those whose key only other choices of the group have."""
    if not any(override.startswith("?") for override in overrides):
        return list(overrides)
    config, kept = _chosen(overrides), []
    for override in overrides:
        group, _, key = override.removeprefix("?").partition("=")[0].partition(".")
        part = getattr(config, group, None)
        if not (override.startswith("?") and isinstance(part, Choice) and key in others(part)):
            kept.append(override.removeprefix("?"))
    return kept


def _quickly(overrides: Sequence[str]) -> RunConfig | None:
    """Return the configuration if every override chooses from a group or sets a single existing value, else None."""
    groups = tuple(override for override in overrides if override.partition("=")[0] in _groups())
    config = _copied(_of_groups(groups))
    for override in overrides:
        if override in groups:
            continue
        part = getattr(config, override.partition(".")[0], None)
        owner: Any = type(part) if isinstance(part, Choice) else RunConfig
        pair = _value(override, owner)
        if pair is None or not _set(config, *pair):
            return None
    return cast(RunConfig, config)


def _chosen(overrides: Sequence[str]) -> RunConfig | None:
    """Return the configuration of the choices among the overrides alone, or None where they are wrong."""
    try:
        return _of_groups(tuple(o for o in overrides if o.partition("=")[0] in _groups()))
    except (HydraException, OmegaConfBaseException, ConfigError):
        return None


@cache
def _of_groups(groups: tuple[str, ...]) -> RunConfig:
    """Return the configuration of choices from groups; raises as Hydra does.

    A task is composed apart where it and the other choices write nothing of each other: a plan has many tasks with each of these.
    """
    task = tuple(group for group in groups if group.startswith("task="))
    base, alone = _composed(()), _composed(task)
    others_of_task = (key for key in vars(base) if key not in ("task", "chosen"))
    if not task or any(getattr(alone, key) != getattr(base, key) for key in others_of_task):
        return _composed(groups)
    rest = copy.copy(_composed(tuple(group for group in groups if group not in task)))
    if rest.task != base.task:
        return _composed(groups)
    rest.task, rest.chosen = alone.task, rest.chosen | {"task": alone.chosen["task"]}
    return rest


@cache
def _composed(overrides: tuple[str, ...]) -> RunConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        try:
            composed = compose("config", overrides=list(overrides), return_hydra_config=True)
        except YAMLError as error:
            raise explain(error, overrides) from error
    chosen = composed.hydra.runtime.choices
    with open_dict(composed):
        del composed["hydra"]
    return typed(composed, chosen)


def _copied(node: Any) -> Any:
    """Return a copy in which any key can be set. Values are shared, which makes it ten times as fast as deepcopy."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    if not is_dataclass(node):
        return node
    copied = copy.copy(node)
    vars(copied).update({key: _copied(value) for key, value in vars(node).items()})
    return copied


@cache
def _value(override: str, owner: Any) -> tuple[str, Any] | None:
    """Return the key and the value, converted to the type that the schema gives the key; None where Hydra has to look.

    `owner` is the chosen class of the key's group where the group's choices have different keys, else RunConfig.
    """
    key = override.partition("=")[0]
    kind = type_of(key)
    if (
        kind in (None, Any)
        or is_dataclass(kind)
        or get_origin(kind) is dict
        or "${" in override
        or "???" in override
    ):
        return None
    schema, inner = _schema(owner), key if owner is RunConfig else key.partition(".")[2]
    try:
        parsed = OverridesParser.create().parse_override(in_hydras_grammar(override))
        if parsed.is_sweep_override() or parsed.package:
            return None
        OmegaConf.update(schema, inner, parsed.value(), merge=False)
    except (HydraException, OmegaConfBaseException):
        return None
    value = OmegaConf.select(schema, inner)
    return key, OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


@cache  # it takes longer than all other work on an override, which writes and reads its key only
def _schema(owner: Any) -> DictConfig:
    return cast(DictConfig, OmegaConf.structured(owner))


def _set(config: RunConfig, key: str, value: Any) -> bool:
    """Set the key and return True; return False for a name that its dictionary does not have."""
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        node = node.get(parent, {}) if isinstance(node, dict) else getattr(node, parent)
    if not isinstance(node, dict):
        setattr(node, last, value)
    elif last in node:
        node[last] = value
    else:
        return False
    return True


def text_of(value: Any) -> str:
    """Return a value as an override writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
