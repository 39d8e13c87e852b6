"""What `bench coverage` measured of texts, read from beside the records."""

import json
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError


class Covered(NamedTuple):
    """How one embedding covers one text."""

    corpus: str  # the name of the text's file, without its ending
    name: str  # of the configuration: <model>/<method-slug>
    embedding_id: str  # bench.report.names.embedding_id
    facts: dict[str, float]
    # bench.probes.coverage.text_slug; empty in older files, which name texts by `corpus` alone
    text: str = ""


def read_coverage(results_dir: Path) -> list[Covered]:
    """Return the measurements in coverage/*.json; raises BenchError for a file that `bench coverage` did not write."""
    covered = []
    for path in sorted((results_dir / "coverage").glob("*.json")):
        try:
            covered.append(Covered(**json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError) as error:
            raise BenchError(
                f"{path} cannot be read ({error}): delete it and run `bench coverage` again."
            ) from error
    return covered
