"""What is exported: a run, found by its record or described by its configuration, and the weights that it trained."""

import difflib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import store
from bench.compose import choices, compose_config
from bench.config import RunConfig
from bench.errors import BenchError, ConfigError
from bench.identity import Prepared, prepare
from bench.store import Record


def find(run_id: str, overrides: Sequence[str]) -> tuple[Prepared, Record]:
    """Return the run whose record is in the results folder, set up again from its canonical configuration.

    `overrides` say what a record cannot: folders, and where a model, data or a corpus that bench does not ship lie. Raises
    ConfigError for an unknown run, BenchError for one that failed or that cannot be set up as it was.
    """
    results_dir = Path(compose_config(overrides).results_dir)
    known = {record["run_id"]: record for record in store.read_all(results_dir)[0]}
    if run_id not in known:
        near = difflib.get_close_matches(run_id, known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}' ({known[near[0]]['name']})?" if near else ""
        raise ConfigError(
            f"Unknown run '{run_id}': none of the {len(known)} records in {results_dir} has this id.{hint}"
        )
    record = known[run_id]
    if record["status"] != "ok":
        raise BenchError(
            f"Run {run_id} ({record['name']}) is recorded as {record['status']}: there is no model to export."
        )
    prepared = prepare(configuration(record["config"], overrides))
    if differing := [key for key in record["config"] if prepared.canonical.get(key) != record["config"][key]]:
        raise BenchError(
            f"Run {run_id} ({record['name']}) cannot be set up as it was: {', '.join(differing)} differ. Add what its record cannot "
            "say (model.path=, data.root=, assignment.corpus= ...), or use the version of bench that made it "
            f"({record['provenance'].get('commit')})."
        )
    return prepared, record


def configuration(canonical: dict[str, Any], overrides: Sequence[str]) -> RunConfig:
    """Return the configuration that has this canonical form; a corpus that is known by its digest only stays as overridden."""
    groups = {group: canonical[group]["name"] for group in ("model", "task", "embedding", "recovery")}
    if canonical["assignment"]:
        groups["assignment"] = canonical["assignment"]["name"]
    config = compose_config(
        [*(f"{group}={name}" for group, name in groups.items() if name in choices(group)), *overrides]
    )
    for group in ("task", "embedding", "assignment", "recovery", "training"):
        part = getattr(config, group)
        given = {
            key: value
            for key, value in (canonical[group] or {}).items()
            if hasattr(part, key) and not (key == "corpus" and value != "task")
        }
        setattr(config, group, replace(part, **given))
    config.model.weights, config.data.source, config.seed = (
        canonical["model"]["weights"],
        canonical["data"]["source"],
        canonical["seed"],
    )
    config.body = canonical.get("body", "fp32")
    return config


def described(overrides: Sequence[str]) -> tuple[Prepared, Record | None]:
    """Return the run that the overrides describe, with its record where it was finished before."""
    prepared = prepare(compose_config(overrides))
    path = store.path_of(Path(prepared.config.results_dir), prepared.name, prepared.run_id)
    try:
        record = store.read(path)
    except (OSError, ValueError):
        return prepared, None
    return prepared, record if record["status"] == "ok" else None


def weights(prepared: Prepared, record: Record | None, train: bool) -> tuple[Path, Record]:
    """Return the folder with the run's trained weights, and its record; trains the run where they were not kept and it may.

    Raises BenchError where they are gone, where the run fails, or where training it again gives another headline than its
    record has: the record's scores would be those of another model.
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
                f"Run {prepared.run_id} trained again has {again['headline']}, but its record says {record['headline']}: other packages "
                "or another device; export its configuration with another results_dir to have a record of this model."
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(store.weights_folder(Path(scratch), prepared.name, prepared.run_id), folder)
    return folder, record


def _trained(prepared: Prepared, results_dir: Path) -> Record:
    from bench.run import execute

    record = execute(
        replace(prepared, config=replace(prepared.config, keep_weights=True, results_dir=str(results_dir)))
    )
    if record["status"] != "ok":
        reason = (record["error"] or {}).get("message")
        raise BenchError(
            f"Run {prepared.run_id} ({prepared.name}) failed, so that there is nothing to export: {reason}"
        )
    return record
