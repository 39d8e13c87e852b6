"""Headline scores on drawn evaluation rows, from packed predictions: what intervals over seeds and rows are made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import ConfigError
from bench.statistics import row_draws
from bench.store import Packed, Record, packed_file, read_packed
from bench.tasks.metrics import METRICS


def with_replicates(frame: pd.DataFrame, records: list[Record], results_dir: Path) -> pd.DataFrame:
    """Return the frame of `to_frame` with each run's headline on draws of its rows, (DRAWS,), None without packed predictions.

    All runs have the same draws, so that those of two runs on the same rows are paired. A split in several languages has the same
    sentences in each, and the same draws. Raises ConfigError where the packed predictions do not give the record's score.
    """
    found: dict[str, Any] = {}
    for path in sorted({packed_file(results_dir, record["name"]) for record in records}):
        by_run: dict[str, list[Packed]] = {}
        for line in read_packed(path):
            by_run.setdefault(line.run_id, []).append(line)
        of_file = [record for record in records if record["run_id"] in by_run]
        found |= {record["run_id"]: _drawn(record, by_run[record["run_id"]]) for record in of_file}
    return frame.assign(replicates=frame.run_id.map(found.get))


def _drawn(record: Record, lines: list[Packed]) -> np.ndarray | None:
    """Return the run's headline on draws of the rows, (DRAWS,), or None without a score or labels."""
    headline: Any = record["headline"]
    if headline is None or headline["metric"] not in METRICS:
        return None
    mine = [line for line in lines if line.split.split("/")[0] == headline["split"]]
    parts = [(line.predictions, line.labels) for line in mine if line.labels is not None]
    if not parts:
        return None
    weighted = METRICS[headline["metric"]].weighted
    whole = np.mean([weighted(values, labels, np.ones((1, len(values)))) for values, labels in parts])
    if not np.isclose(whole, headline["value"], atol=1e-5):
        raise ConfigError(
            f"The packed predictions of {record['name']} give {headline['metric']} {whole:.6f}, its record says "
            f"{headline['value']:.6f}: run `bench pack`, or take both from the same commit."
        )
    drawn: np.ndarray = np.mean([weighted(*part, row_draws(len(part[0]))) for part in parts], axis=0)
    return drawn
