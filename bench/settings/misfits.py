"""What is wrong with a file of conf/ that its class cannot hold: the key, the value, and what would fit."""

from inspect import formatannotation
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.errors import ConfigError, unknown


def misfit(file: Path, kind: type[Any]) -> ConfigError | None:
    """Return the error for the first key that `kind`, a dataclass, does not have, or whose value is missing or has another type.

    None if all fit. OmegaConf's own errors name neither the file nor, for a wrong type, the key.
    """
    where, held = f"conf/{file.parent.name}/{file.name}", OmegaConf.load(file)
    types = {key: formatannotation(hint) for key, hint in get_type_hints(kind).items()}
    if not isinstance(held, DictConfig):
        return ConfigError(f"{where} holds no keys: give each a line, as in `name: {file.stem}`.")
    for key, value in held.items_ex(resolve=False):
        if key == "defaults":
            continue
        if key not in types:
            return ConfigError(f"{where}: {unknown('key', str(key), types)}")
        try:
            OmegaConf.merge(OmegaConf.structured(kind), {key: value})
        except OmegaConfBaseException:
            return ConfigError(
                f"{where}: {key} ({value}) has the wrong type: give a value of type {types[key]}."
            )

    # A file that builds on others takes values from them.
    missing = OmegaConf.missing_keys(OmegaConf.structured(kind)) - held.keys()
    if missing and "defaults" not in held:
        key = min(missing)
        return ConfigError(f"{where}: {key} is missing: add `{key}: <value of type {types[key]}>`.")
    return None
