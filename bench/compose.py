"""Hydra's side: overrides in, a typed RunConfig out, and errors that say what was meant."""

import copy
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.config import RunConfig
from bench.errors import ConfigError, unknown

CONF = Path(__file__).resolve().parent.parent / "conf"
ConfigStore.instance().store(name="schema", node=RunConfig)


def choices(group: str) -> list[str]:
    """Return the names that a configuration group offers: the YAML files of conf/<group>/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return one clear sentence for what Hydra or OmegaConf refused."""
    for override in overrides:  # an unknown name in a group: Hydra's own text is long and has no suggestion
        key, _, value = override.partition("=")
        if "=" not in override:
            return ConfigError(f"'{override}' has no value: write {override}=<value>.")
        if (CONF / key).is_dir() and re.fullmatch(r"[\w./-]+", value) and value not in choices(key):
            return ConfigError(unknown(key, value, choices(key)))
    text = (
        str(error)
        if not isinstance(error, ConfigCompositionException)
        else f"{error} {error.__cause__ or ''}"
    )
    if (match := re.search(r"override '([\w.]+)'", text)) or (
        match := re.search(r"full_key: ([\w.]+)", text)
    ):
        key = match[1]
        known = _keys(OmegaConf.structured(RunConfig))
        if key not in known:
            return ConfigError(unknown("key", key, known).split(" Available:")[0])
        given = next((o.partition("=")[2] for o in overrides if o.startswith(f"{key}=")), None)
        reason = str(error.__cause__ or error).splitlines()[0]
        return ConfigError(f"{key}{'' if given is None else f' ({given})'} has the wrong type: {reason}.")
    return ConfigError(f"The configuration cannot be composed: {text.strip().splitlines()[0]}")


def _keys(node: Any, prefix: str = "") -> set[str]:
    keys = set()
    for key in node:
        keys.add(prefix + str(key))
        if isinstance(node._get_node(key), DictConfig) and not node._is_none():
            keys |= _keys(node._get_node(key), f"{prefix}{key}.")
    return keys


def typed(config: DictConfig) -> RunConfig:
    """Return the composed configuration as a RunConfig; raises ConfigError for a value that is missing."""
    try:
        return cast(RunConfig, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration is incomplete: {str(error).splitlines()[0]}.") from error


def compose_config(overrides: Sequence[str]) -> RunConfig:
    """Return the run that `overrides` describe, as `python -m bench run <overrides>` would start it.

    Raises ConfigError with the key, the value and what was probably meant. Hydra composes each choice of groups once;
    single values are then set on a copy, so that a plan of thousands of runs takes seconds.
    """
    groups = tuple(o for o in overrides if (CONF / o.partition("=")[0]).is_dir() or o[:1] in "+~")
    try:
        config: RunConfig = _copied(_composed(groups))
        for override in overrides:
            if override not in groups:
                _set(config, *_value(override))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error
    return config


@cache
def _composed(groups: tuple[str, ...]) -> RunConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        return typed(compose("config", overrides=list(groups)))


def _copied(node: Any) -> Any:
    """Return a copy in which any key can be set; values are shared, which deepcopy takes ten times as long to find out."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    if not is_dataclass(node):
        return node
    made = copy.copy(node)
    vars(made).update({key: _copied(value) for key, value in vars(node).items()})
    return made


@cache
def _value(override: str) -> tuple[str, Any]:
    """Return the key and the value, converted to the type that the schema gives the key."""
    parsed = OverridesParser.create().parse_override(override)
    OmegaConf.update(_schema(), parsed.key_or_group, parsed.value(), merge=False)
    value = OmegaConf.select(_schema(), parsed.key_or_group)
    return parsed.key_or_group, OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


@cache  # to make one takes longer than all else that an override needs; each only writes and reads its own key
def _schema() -> DictConfig:
    return cast(DictConfig, OmegaConf.structured(RunConfig))


def _set(config: RunConfig, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else getattr(node, parent)
    if isinstance(node, dict):
        node[last] = value
    else:
        setattr(node, last, value)
