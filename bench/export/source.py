"""The run to export, by its record or by its configuration, and its trained weights."""

import difflib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from bench import store
from bench.errors import BenchError, ConfigError
from bench.runs.execute import execute
from bench.runs.identity import Prepared, prepare
from bench.settings.choices import RENAMED_CHOICES
from bench.settings.compose import choices, compose_config, text_of
from bench.settings.schema import RunConfig, SamplingConfig
from bench.store import CHOSEN, ModelPart, Record


class Source(NamedTuple):
    """A folder or a text that a record holds as a digest only: it names nothing of the machine."""

    digests: tuple[str, ...]  # beginnings of the canonical keys that depend on it
    placeholder: str  # stands for it in a command


FILES = {
    "model.path": Source(("model.sha256", "model.files"), "<folder of the model>"),
    "data.root": Source(("data.",), "<folder of the data>"),
    "assignment.corpus": Source(("assignment.corpus", "embedding.corpus"), "<its text file or splits>"),
    "recovery.corpus": Source(("recovery.corpus",), "<its text file or splits>"),
    "pretraining.corpus": Source(("pretraining.corpus",), "<its text files>"),
}
ABSENT = object()  # no value, not even null


def find(run_id: str, overrides: Sequence[str]) -> tuple[Prepared, Record]:
    """Return a run of the results folder, set up again from its record's canonical configuration, and the record.

    `overrides` name what a record does not hold: folders, and the files of a model, data or a corpus that bench does not
    ship. Raises ConfigError for an unknown run, BenchError for a failed run and for one that comes out differently.
    """
    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    known = {record["run_id"]: record for record in store.read_all(results_dir)[0]}
    if run_id not in known:
        near = difflib.get_close_matches(run_id, known, n=1, cutoff=0.8)  # a letter or two mistyped
        hint = f"Did you mean '{near[0]}' ({known[near[0]]['name']})? Else name" if near else "Name"
        raise ConfigError(
            f"Unknown run '{run_id}': none of the {len(known)} records in {results_dir} has this id. {hint} the folder "
            "that holds its record, as in results_dir=results/demo."
        )
    record = known[run_id]
    _refuse_others(record, config, overrides)
    if record["status"] != "ok":
        raise BenchError(
            f"Run {run_id} ({record['name']}) is recorded as {record['status']}: there is no model to export."
        )
    return _as_it_was(record, overrides), record


def _refuse_others(record: Record, config: RunConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError for an override that gives another value than the record has; `config` is composed of the overrides."""
    recorded = {"body": "fp32", "sampling": asdict(SamplingConfig())} | record["config"]
    for override in overrides:
        key = override.lstrip("?+").partition("=")[0]
        group, _, inner = key.partition(".")
        if group not in recorded.keys() - {"model", "data"} or key in FILES:
            continue
        then, now = _at(recorded[group], inner), _at(getattr(config, group), inner)
        if then not in (ABSENT, now):
            raise ConfigError(
                f"{override}: run {record['run_id']} has {text_of(then)} in its record, and is exported as it was: leave that out, or "
                "describe another run by key=value without the id."
            )


def _at(part: Any, inner: str) -> Any:
    """Return the value of a dotted key in a group, a group's name, or a single value itself; ABSENT where there is none."""
    if part is None:
        return ABSENT
    is_group = isinstance(part, dict) or is_dataclass(part)
    for name in inner.split(".") if inner else ["name"] * is_group:
        part = part.get(name, ABSENT) if isinstance(part, dict) else getattr(part, name, ABSENT)
    return part


def _as_it_was(record: Record, overrides: Sequence[str]) -> Prepared:
    """Return the record's run, set up again.

    Raises ConfigError if an override has to name a file and none does. Raises BenchError if the configuration differs from the
    record: the message lists each key with both values, and the command to run.
    """
    run = f"Run {record['run_id']} ({record['name']})"

    # Ask for the files that the record does not name.
    missing = [key for key in _needed(record) if not any(o.startswith(f"{key}=") for o in overrides)]
    if missing:
        raise ConfigError(
            f"{run} was made with files that a record does not name: say where they are, as in "
            f"{_command(record, overrides, missing)}."
        )
    try:
        prepared = prepare(configuration(record, overrides), training_version(record))
    except BenchError as error:
        raise type(error)(f"{run} cannot be set up as it was: {error}") from error
    if not (differing := _differing(record["config"], prepared.canonical)):
        return prepared

    # Name what differs, and the command without the overrides that cause it.
    values = "; ".join(
        f"{key} is {text_of(then)} in its record and {text_of(now)} here"
        for key, (then, now) in differing.items()
    )
    groups = {key.partition(".")[0] for key in differing}
    others = [o for o in overrides if re.split(r"[.=]", o, maxsplit=1)[0] not in groups]
    wrong = [key for key in _needed(record) if any(d.startswith(FILES[key].digests) for d in differing)]
    raise BenchError(
        f"{run} cannot be set up as it was: {values}. Try {_command(record, others, wrong)}, or the version of bench that "
        f"made it ({record['provenance'].get('commit')})."
    )


def _needed(record: Record) -> list[str]:
    """Return the keys of FILES that the run needs."""
    canonical = record["config"]
    corpora = {
        part: (canonical[part] or {}).get("corpus", "task")
        for part in ("embedding", "assignment", "recovery")
    }
    needed = {
        "model.path": _model(record).get("source") == "local",
        "data.root": canonical["data"]["source"] in ("parquet", "official"),
        "assignment.corpus": {corpora["embedding"], corpora["assignment"]} != {"task"},
        "recovery.corpus": corpora["recovery"] != "task",
        "pretraining.corpus": "pretraining" in canonical,
    }
    return [key for key in FILES if needed[key]]


def _command(record: Record, overrides: Sequence[str], files: Sequence[str]) -> str:
    """Return the command that exports the run, with a placeholder for each of the `files`."""
    kept = [shlex.quote(o) for o in overrides if o.partition("=")[0] not in files]
    placeholders = [f"{key}={FILES[key].placeholder}" for key in files]
    return " ".join(["`python -m bench export", record["run_id"], *kept, *placeholders, "--to <folder>`"])


def _differing(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ, with both values; "nothing" stands for a missing key."""
    differing: dict[str, tuple[Any, Any]] = {}
    for key in {**then, **now}:
        before, after = then.get(key, "nothing"), now.get(key, "nothing")
        if isinstance(before, dict) and isinstance(after, dict):
            differing |= _differing(before, after, f"{prefix}{key}.")
        elif before != after:
            differing[prefix + key] = (before, after)
    return differing


def _chosen(record: Record) -> dict[str, str]:
    """Return the choice of each group: as recorded, else the choice of the same name if there is one."""
    canonical = record["config"]
    named = {group: (canonical[group] or {}).get("name") for group in CHOSEN}
    chosen = named | record.get("chosen", {})
    present = {group: RENAMED_CHOICES.get((group, str(name)), name) for group, name in chosen.items()}
    return {group: name for group, name in present.items() if name in choices(group)}


def _model(record: Record) -> dict[str, Any]:
    """Return the values of `model` that complete the record's choice of a model."""
    canonical, known = record["config"]["model"], cast(ModelPart, record["model"])
    given = {key: canonical.get(key) for key in ("name", "weights", "pooling")}
    if "path" in canonical:
        return given | {"source": "hub", "path": canonical["path"], "revision": canonical["revision"]}

    # A packaged model is known by its digest; any other is a local folder.
    name = _chosen(record).get("model")
    choice = compose_config([f"model={name}"]).model if name else None
    if choice and (choice.source, choice.sha256) == ("package", known["sha256"]):
        return given
    facts = {key: known[key] for key in ("revision", "sha256", "vocab_size", "width")}
    return given | {"source": "local", **facts, "positions": None}


def configuration(record: Record, overrides: Sequence[str]) -> RunConfig:
    """Return the configuration with the record's canonical form. A corpus, of which a record has the digest only, is the override's."""
    canonical = record["config"]
    chosen = [f"{group}={name}" for group, name in _chosen(record).items()]
    chosen.append(f"pretraining={canonical.get('pretraining', {'name': 'none'})['name']}")
    model = [f"model.{key}={text_of(value)}" for key, value in _model(record).items()]
    config = compose_config([*chosen, *model, *overrides])
    for group in ("task", "embedding", "assignment", "pretraining", "recovery", "training"):
        part = getattr(config, group)
        given = {
            key: value["name"] if group == "assignment" and key == "model" else value
            for key, value in (canonical.get(group) or {}).items()
            if hasattr(part, key) and not (key == "corpus" and value != "task")
        }
        setattr(config, group, replace(part, **given))
    config.model.weights = canonical["model"]["weights"]
    config.model.architecture = canonical["model"].get("architecture", {})
    config.data.source, config.seed = canonical["data"]["source"], canonical["seed"]
    config.body = canonical.get("body", "fp32")
    config.sampling = SamplingConfig(**canonical.get("sampling", {}))
    return config


def training_version(record: Record) -> int:
    """Return the version of the training that made the record."""
    return int(record["config"]["training"].get("version", 1))


def described(overrides: Sequence[str]) -> tuple[Prepared, Record | None]:
    """Return the run that the overrides describe, and its record if it has finished before."""
    prepared = prepare(compose_config(overrides))
    path = store.path_of(Path(prepared.config.results_dir), prepared.name, prepared.run_id)
    try:
        record = store.read(path)
    except (OSError, ValueError):
        return prepared, None
    return prepared, record if record["status"] == "ok" else None


def weights(prepared: Prepared, record: Record | None, train: bool) -> tuple[Path, Record]:
    """Return the folder with the run's trained weights, and its record. Without them, train the run if `train` allows it.

    Raises BenchError if there are no weights, if the run fails, or if a second training gives another headline: the
    record's scores would belong to another model.
    """
    results_dir = Path(prepared.config.results_dir)
    folder = store.weights_folder(results_dir, prepared.name, prepared.run_id)
    if record and folder.is_dir():
        return folder, record
    if record and not train:
        seconds = record["training"]["seconds"] if record["training"] else 0
        raise BenchError(
            f"The weights of run {prepared.run_id} ({prepared.name}) are not in {folder}: add --retrain to train it again "
            f"({seconds:.0f} s in its record); keep_weights=true keeps those of later runs."
        )
    if not record:
        return folder, _trained(prepared, results_dir)
    with tempfile.TemporaryDirectory(dir=results_dir, prefix=".retrain-", suffix=".tmp") as scratch:
        again = _trained(prepared, Path(scratch))
        if again["headline"] != record["headline"]:
            raise BenchError(
                f"Run {prepared.run_id} trained again has {again['headline']}, but its record says {record['headline']}: packages, "
                "device or the version of training differ; export its configuration with another results_dir to get a record of this model."
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(store.weights_folder(Path(scratch), prepared.name, prepared.run_id), folder)
    return folder, record


def _trained(prepared: Prepared, results_dir: Path) -> Record:
    config = replace(prepared.config, keep_weights=True, results_dir=str(results_dir))
    record = execute(replace(prepared, config=config))
    if record["status"] != "ok":
        reason = (record["error"] or {}).get("message")
        raise BenchError(
            f"Run {prepared.run_id} ({prepared.name}) failed and there is nothing to export: {reason}"
        )
    return record
