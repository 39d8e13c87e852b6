"""What a report shows of one model and suite: configurations in rows, tasks and means over tasks in columns."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.report.frame import Mark
from bench.statistics import Summary

FLOORS = ("mean", "hash_only")  # methods that every other has to beat: all tokens share what they store
MEAN = "headline metrics"
ALL, GAP = (
    "all",
    "gap",
)  # among a task's languages or categories: the split's own score, and how far other languages are behind


class Column(NamedTuple):
    """One task (or the mean over tasks) as it is shown."""

    name: str  # unique in its section
    task: str
    marks: tuple[str, ...]
    unofficial: tuple[Mark, ...]  # what the marks are the text of; none for the mean
    metric: str | None  # None: nothing finished
    split: str | None
    scale: float  # 100 for fractions
    higher_is_better: bool
    chance: float | None  # scaled
    parts: tuple[str, ...]  # the columns that it averages; itself for a task
    rows: int | None  # behind each score where it is a share of them (accuracy)

    @property
    def scaling(self) -> str:
        """Return what stands behind the metric's name: " (%)", " × 100" or nothing."""
        percent = (self.metric or "").startswith(("accuracy", "f1"))
        return "" if self.scale == 1 else " (%)" if percent else " × 100"

    @property
    def unit(self) -> str:
        """Return the metric with its unit."""
        return f"{self.metric or ''}{self.scaling}"


class Cell(NamedTuple):
    """One configuration on one task."""

    score: Summary
    change: Summary  # difference to dense over the seeds that both have
    share: Summary  # percent of dense over these
    worse: float | None  # probability of being worse than dense by more than the threshold
    seeds: tuple[int, ...]
    collapsed: int  # runs that predict one class only
    missing: str  # why there is no score; empty where there is one
    unpaired: str  # why there is no difference; empty where there is one, and for dense itself


class Row(NamedTuple):
    """One configuration of a section; sizes and costs are None where none of its runs got that far."""

    config_id: str
    label: str
    kind: str
    method: str
    body: str  # fp32 | bf16 | int8
    recovery: str
    subspaces: int | None
    table_rows: int | None
    table_family: str  # equal where only subspaces and rows differ
    assignment_family: str  # shared with those that differ in the assignment only; empty: it has none
    params: int | None
    bytes: int | None
    param_saving: float | None
    byte_saving: float | None
    file_bytes: int | None
    total_bytes: int | None  # of the whole model as stored; of tasks the first's: they differ by their heads
    peak_memory_bytes: float | None  # this and latency on the section's machine; of tasks their mean
    latency_batch1_ms: float | None
    latency_batch32_ms: float | None
    decile_errors: list[float] | None
    recovery_curve: list[list[float]] | None  # [step, loss]


@dataclass(frozen=True)
class Section:
    """One model on one suite, or on the languages or categories of one task."""

    model: str
    weights: str
    suite: str
    rows: list[Row]  # dense first, then by stored bytes, largest first
    columns: list[Column]
    cells: dict[tuple[str, str], Cell]  # (config_id, column name)
    means: list[Column]  # over tasks, also in `columns`, last; the last one stands for the section
    no_mean: str  # why there is none
    machine: str  # where latency and memory were measured; empty: nowhere
    tokens: (
        int | None
    )  # of each row whose latency `bench cost` measured; None: latency and memory are what the runs noted
    threshold: float  # points below dense that count as worse
    provenance: (
        str  # of its own records only, so that records of other sections leave its figures as they are
    )
    scores: dict[tuple[str, str], dict[int, float]] = field(
        repr=False
    )  # (config_id, task's column) -> seed -> score

    @property
    def title(self) -> str:
        """Return the model's name, marked if its weights are random."""
        return f"{self.model} (random weights)" if self.weights == "random" else self.model

    @property
    def embeddings(self) -> list[Row]:
        """Return the rows that differ in nothing but the embedding and its training: those whose body is in fp32."""
        return [row for row in self.rows if row.body == "fp32"]

    @property
    def tasks(self) -> list[Column]:
        """Return the columns that are no means."""
        return self.columns[: len(self.columns) - len(self.means)]

    @property
    def mean(self) -> Column | None:
        """Return the mean over tasks that stands for the section."""
        return self.means[-1] if self.means else None

    @property
    def main(self) -> Column:
        """Return the column that stands for the section: the mean over tasks, where there is none the first task."""
        return self.mean or self.columns[0]

    @property
    def unsure(self) -> list[Column]:
        """Return the tasks that keep a mean over tasks of one seed from having an interval: their metric is no share of rows."""
        return [
            column
            for column in self.tasks
            if self.mean and column.name in self.mean.parts and column.rows is None
        ]

    def runs(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the lines of the frame that are this section's, where it is a model on a suite."""
        keys = {"model": self.model, "weights": self.weights, "suite": self.suite}
        return frame[(frame[list(keys)] == pd.Series(keys)).all(axis=1)]

    def values(self, config_id: str, column: Column) -> dict[int, list[float]]:
        """Return seed -> the tasks' scores, of the seeds that every task of the column has."""
        tasks = [self.scores.get((config_id, part), {}) for part in column.parts]
        return {
            seed: [task[seed] for task in tasks]
            for seed in sorted(tasks[0])
            if all(seed in task for task in tasks)
        }

    def paired(self, one: str, other: str, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Return both configurations' scores (tasks, seeds) over the seeds that both have."""
        first, second = self.values(one, column), self.values(other, column)
        seeds = [seed for seed in first if seed in second]
        return np.array([first[seed] for seed in seeds]).T, np.array([second[seed] for seed in seeds]).T
