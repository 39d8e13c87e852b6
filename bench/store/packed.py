"""Predictions of many runs in a small file that git keeps: packed_predictions/<model>/<task>.parquet.

A line holds the predictions of a run on a split. Where the split has labels, they stand beside them, sorted, and the predictions
are in the order of the labels: every metric can be computed, since none depends on the order of the rows, and nobody learns the
label of a row. Data sets' licences are therefore not touched. Whoever has the data gets the rows' order back.
"""

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from bench.errors import BenchError
from bench.store.cache import write_atomically
from bench.store.records import predictions_folder, stored_splits, write_predictions


class Packed(NamedTuple):
    """A run's predictions of a split, (rows,), and the sorted labels in whose order they are; None: in the rows' order."""

    run_id: str
    split: str  # with the language, as in `split_name`
    predictions: np.ndarray  # int8 for classes, float32 for a regression
    labels: np.ndarray | None


def packed_file(results_dir: Path, name: str) -> Path:
    """Return the file for the runs of a record's model and task; `name` is the record's."""
    model, task, *_ = name.split("/")
    return results_dir / "packed_predictions" / model / f"{task}.parquet"


def packed(folder: Path, run_id: str, labels: Mapping[str, np.ndarray]) -> list[Packed]:
    """Return the stored predictions of a run's folder as they are packed; `labels` (rows,) by split, where they are known."""
    lines = []
    for split, values in sorted(stored_splits(folder).items()):
        gold = labels.get(split)
        if gold is not None:
            order = np.argsort(gold, kind="stable")
            values, gold = values[order], gold[order].astype(values.dtype)
        lines.append(Packed(run_id, split, values, gold))
    return lines


def write_packed(path: Path, lines: Iterable[Packed]) -> None:
    """Write the file; equal lines give equal bytes.

    Bytes of equal weight lie together (byte stream split) before zstd. Of 230 runs with 408 predictions of two classes that
    makes 10,084 bytes, where bits make 11,730; of 1,500 random float32 numbers (6,000 bytes) 4,760, where zstd alone makes 5,390.
    """
    import pyarrow.parquet as pq  # here and below: a run, which packs nothing, starts without it

    columns = zip(*sorted(lines, key=lambda line: line[:2]), strict=True)
    table = pa.table(dict(zip(Packed._fields, map(list, columns), strict=True)))
    content = BytesIO()
    pq.write_table(
        table,
        content,
        compression="zstd",
        compression_level=19,
        use_dictionary=["run_id", "split", "labels.list.element"],
        column_encoding={"predictions.list.element": "BYTE_STREAM_SPLIT"},
    )
    write_atomically(path, content.getvalue())


def read_packed(path: Path, run_id: str | None = None) -> list[Packed]:
    """Return the file's lines, or those of a run; none where the file is missing. Raises BenchError where it is damaged."""
    if not path.exists():
        return []
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, filters=None if run_id is None else [("run_id", "=", run_id)])
        columns = [table[name] for name in Packed._fields]
    except (pa.ArrowException, KeyError, OSError) as error:
        raise BenchError(
            f"{path} cannot be read ({error}): take it from git again, or run `bench pack`."
        ) from error
    return [
        Packed(run.as_py(), split.as_py(), *map(_array, lists))
        for run, split, *lists in zip(*columns, strict=True)
    ]


def unpack(results_dir: Path, name: str, run_id: str, labels: Mapping[str, np.ndarray]) -> None:
    """Write a run's packed predictions to its folder, in the rows' order that the `labels` (rows,) of its splits give.

    Raises BenchError where a split's labels are not those that it was packed with.
    """
    for _, split, values, gold in read_packed(packed_file(results_dir, name), run_id):
        if gold is not None:
            known = labels.get(split, np.array([]))
            order = np.argsort(known, kind="stable")
            if not np.array_equal(known[order].astype(gold.dtype), gold):
                raise BenchError(f"The labels of {split} are not those that {name} was packed with.")
            values = values[np.argsort(order)]
        write_predictions(predictions_folder(results_dir, name, run_id), split, values)


def _array(numbers: Any) -> Any:
    return numbers.values.to_numpy() if numbers.is_valid else None
