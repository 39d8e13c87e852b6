"""What `bench latency` measured of embeddings, read from beside the records."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.store.schema import ProfilePart, Record


def profile_key(config: dict[str, Any]) -> str:
    """Return what decides latency and memory, of a canonical configuration; the codes of another seed cost the same."""
    codes = {key: value for key, value in (config["assignment"] or {}).items() if key != "seed"}
    return json.dumps([config["model"], config["embedding"], codes], sort_keys=True)


def profiled(record: Record) -> bool:
    """Return whether profiles are about the record: it is of a finished run whose body is in fp32, as theirs is."""
    return record["status"] == "ok" and record["cost"] is not None and "body" not in record["config"]


def with_profiles(records: Iterable[Record], results_dir: Path) -> list[Record]:
    """Return the records; those without profiles, made after `bench latency` ran, have the ones of latency/*.json.

    Raises BenchError for a file that `bench latency` did not write.
    """
    measured: dict[str, dict[str, ProfilePart]] = {}
    for path in sorted((results_dir / "latency").glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            for row in report["rows"]:
                measured.setdefault(profile_key(row["config"]), {})[report["device"]] = row["profile"]
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"{path} cannot be read ({type(error).__name__}: {error}): delete it and run `bench latency` again."
            ) from error
    return [_with(record, measured) for record in records]


def _with(record: Record, measured: dict[str, dict[str, ProfilePart]]) -> Record:
    cost = record["cost"]
    if not profiled(record) or not cost or cost["profiles"]:
        return record
    found = measured.get(profile_key(record["config"]))
    return record | {"cost": cost | {"profiles": found}} if found else record
