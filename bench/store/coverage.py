"""How texts of a domain are covered: what `bench coverage` left beside the records."""

import json
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError


class Covered(NamedTuple):
    """One text and the embedding that it was measured with."""

    corpus: str  # the name of the text's file, without its ending
    name: str  # of the configuration: <model>/<method-slug>
    embedding_id: str  # bench.report.names.embedding_id
    facts: dict[str, float]
    text: str = ""  # bench.probes.coverage.text_slug; empty in a file of before, which told texts apart by `corpus` alone


def read_coverage(results_dir: Path) -> list[Covered]:
    """Return what lies in coverage/*.json; raises BenchError for a file that `bench coverage` did not write."""
    found = []
    for path in sorted((results_dir / "coverage").glob("*.json")):
        try:
            found.append(Covered(**json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError) as error:
            raise BenchError(
                f"{path} cannot be read ({error}): delete it and run `bench coverage` again."
            ) from error
    return found
