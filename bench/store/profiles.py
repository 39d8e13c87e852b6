"""What `bench latency` measured of embeddings, read from beside the records."""

import json
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.store.schema import ProfilePart, Record


def profile_key(config: dict[str, Any]) -> str:
    """Return what decides latency and memory, of a canonical configuration; the codes of another seed cost the same."""
    codes = {key: value for key, value in (config["assignment"] or {}).items() if key != "seed"}
    return json.dumps([config["model"], config["embedding"], codes], sort_keys=True)


def with_profiles(records: Iterable[Record], results_dir: Path) -> list[Record]:
    """Return the records with the profiles of latency/*.json, and with those that `bench latency` once wrote into them.

    Of several measurements on a device the newest counts. Raises BenchError for a file that `bench latency` did not write.
    """
    found: list[tuple[str, str, str, ProfilePart]] = []
    for path in sorted((results_dir / "latency").glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            made = str(report.get("created_at", ""))  # older files lack it
            found += [
                (made, profile_key(row["config"]), report["device"], row["profile"]) for row in report["rows"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(
                f"{path} cannot be read ({type(error).__name__}: {error}): delete it and run `bench latency` again."
            ) from error
    measured: dict[str, dict[str, ProfilePart]] = {}
    for _, config, device, profile in sorted(found, key=itemgetter(0)):
        measured.setdefault(config, {})[device] = profile
    return [_with(record, measured) for record in records]


def _with(record: Record, measured: dict[str, dict[str, ProfilePart]]) -> Record:
    cost = record["cost"]
    if record["status"] != "ok" or not cost or "body" in record["config"]:  # the profiles' body is in fp32
        return record
    found = (cost["profiles"] or {}) | measured.get(profile_key(record["config"]), {})
    return record | {"cost": cost | {"profiles": found or None}}
