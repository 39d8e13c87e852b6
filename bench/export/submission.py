"""GLUE's submission file: a zip with one TSV for each test set, in the leaderboard's names and words."""

import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from bench import store
from bench.errors import BenchError
from bench.runs.identity import Prepared
from bench.settings.schema import TaskConfig
from bench.tasks.specs import read_task

# (task, split) -> file, as gluebenchmark.com/faq lists them.
FILES = {
    ("cola", "test"): "CoLA",
    ("sst2", "test"): "SST-2",
    ("mrpc", "test"): "MRPC",
    ("stsb", "test"): "STS-B",
    ("qqp", "test"): "QQP",
    ("mnli", "test_matched"): "MNLI-m",
    ("mnli", "test_mismatched"): "MNLI-mm",
    ("qnli", "test"): "QNLI",
    ("rte", "test"): "RTE",
    ("wnli", "test"): "WNLI",
    ("mnli", "ax:test"): "AX",
}
WORDS = ("mnli", "qnli", "rte")  # tasks with labels written as words; the others write codes


def write_submission(runs: Sequence[Prepared], to: Path) -> list[str]:
    """Write the zip of the runs' predictions, one run a task; return the names of its files.

    Raises BenchError, and writes nothing, if a file of the leaderboard has predictions of no run or of two runs, or if
    their number differs from the rows of the official test set.
    """
    sources: dict[str, list[tuple[Prepared, str]]] = {name: [] for name in FILES.values()}
    for run in runs:
        task = run.config.task
        for split in (task.splits[role] for role in task.predict):
            if (task.name, split) in FILES:
                sources[FILES[task.name, split]].append((run, split))
    if not any(sources.values()):
        raise BenchError("No run of the sweep predicts a test set of GLUE: use sweep=glue_test.")
    wrong = [f"{name}.tsv ({len(found)} runs)" for name, found in sources.items() if len(found) != 1]
    if wrong:
        raise BenchError(
            f"The submission needs one run that predicts each test set, but has for {', '.join(wrong)}: use "
            "sweep=glue_test, and name one embedding and one seed."
        )
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, [(run, split)] in sources.items():
            # A fixed date: equal predictions make equal zips.
            archive.writestr(zipfile.ZipInfo(f"{name}.tsv"), _file(run, split), zipfile.ZIP_DEFLATED)
    store.write_atomically(to, content.getvalue())
    return [f"{name}.tsv" for name in sources]


def _file(run: Prepared, split: str) -> str:
    """Return the file's text: a header, then each row's index and its label."""
    values = _predictions(run, split)
    owner, _, plain = split.rpartition(":")
    task = read_task(owner or run.config.task.name)
    if len(values) != task.official_rows[plain]:
        raise BenchError(
            f"{run.name}: {len(values)} predictions of {split}, and the leaderboard's test set has "
            f"{task.official_rows[plain]} rows: get the official data."
        )
    lines = [f"{row}\t{_word(run.config.task, value)}" for row, value in enumerate(values)]
    return "\n".join(["index\tprediction", *lines]) + "\n"


def _predictions(run: Prepared, split: str) -> np.ndarray:
    """Return the run's predictions of a split, the packed ones where its folder is gone; raises BenchError where there are none."""
    results_dir = Path(run.config.results_dir)
    folder = store.predictions_folder(results_dir, run.name, run.run_id)
    if not folder.exists():
        for line in store.read_packed(store.packed_file(results_dir, run.name), run.run_id):
            if line.split == split and line.labels is None:  # in the rows' order
                return line.predictions
        if not store.path_of(results_dir, run.name, run.run_id).exists():
            raise BenchError(
                f"{run.name} has not run: `make sweep SWEEP=glue_test` with the same settings runs it."
            )
    return store.read_predictions(folder, split)


def _word(task: TaskConfig, value: np.generic) -> str:
    if task.labels is None:
        return f"{np.clip(value, *(task.label_range or (-np.inf, np.inf))):.3f}"
    return task.labels[int(value)] if task.name in WORDS else str(int(value))
