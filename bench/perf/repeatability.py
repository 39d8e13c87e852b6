"""Does a run repeat? The same run alone, again in a new process without caches, and beside three others, compared to the last bit."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import store
from bench.errors import BenchError
from bench.runs.execute import execute
from bench.runs.identity import Prepared, prepare, with_seed
from bench.runs.side_by_side import execute_together
from bench.settings.compose import compose_config
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import RunConfig
from bench.store import Record

OTHERS = 3


@dataclass(frozen=True)
class Repeat:
    """A run carried out again, and what differs from the first time: "" if nothing does."""

    how: str
    difference: str


def repeats(overrides: Sequence[str]) -> Iterator[Repeat]:
    """Yield each repetition of the run that the overrides describe; all records lie below results_dir/repeatability.

    The new process has empty caches: it makes codes, recovered models and compiled kernels anew, as another machine would.
    Before the first time, a run of other sizes leaves its compiled code behind. Raises BenchError for a run that fails or
    does not train side by side.
    """
    run = prepare(compose_config(overrides))
    folder = Path(run.config.results_dir).absolute() / "repeatability"

    def within(name: str) -> Prepared:
        return replace(run, config=replace(run.config, results_dir=str(folder / name)))

    # Alone, here, after another run, and in a process of its own. `bench run` would keep a former record.
    _finished(execute(prepare(_shorter(within("before").config))))
    alone = _finished(execute(within("alone")))
    path = store.path_of(folder / "again", run.name, run.run_id)
    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as empty:
        folders = [f"results_dir={folder / 'again'}", f"cache_dir={empty}"]
        done = subprocess.run(
            [sys.executable, "-m", "bench", "run", *overrides, *folders],
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": empty, "TRITON_CACHE_DIR": empty},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise BenchError(f"the run in a new process failed: {(done.stderr.strip().splitlines() or [''])[-1]}")
    again = store.read(path)
    yield Repeat(
        "again in a new process, with empty caches",
        difference(alone, again, folder / "alone", folder / "again"),
    )

    # Beside others of its task, which have other seeds.
    group = [
        within("beside"),
        *(with_seed(within("beside"), run.config.seed + n) for n in range(1, OTHERS + 1)),
    ]
    together = execute_together(group)
    if together is None:
        raise BenchError("the runs cannot train side by side here: the log says why")
    beside = _finished(together[0])
    yield Repeat(f"beside {OTHERS} others", difference(alone, beside, folder / "alone", folder / "beside"))


def _shorter(config: RunConfig) -> RunConfig:
    """Return a run and a recovery of two steps, on rows of 16 tokens, in batches of half the size."""
    training, recovery = config.training, config.recovery
    training = replace(training, max_steps=2, max_length=16, batch_size=max(1, training.batch_size // 2))
    if isinstance(recovery, TrainedRecoveryConfig):
        recovery = replace(recovery, steps=2, max_length=16, batch_size=max(1, recovery.batch_size // 2))
    return replace(config, training=training, recovery=recovery)


def _finished(record: Record) -> Record:
    if record["status"] != "ok":
        raise BenchError(f"{record['name']} ended as {record['status']}: there is nothing to compare.")
    return record


def difference(one: Record, other: Record, one_dir: Path, other_dir: Path) -> str:
    """Return what differs between two records of a run, or between their predictions: "" if nothing does."""
    assert one["training"] and other["training"]
    first, second = ((record["recovery"] or {}).get("sha256") for record in (one, other))
    if first != second:
        return "the recovered encoders differ"
    curves = zip(one["training"]["curve"], other["training"]["curve"], strict=True)
    if unequal := next((pair for pair in curves if pair[0] != pair[1]), None):
        return f"the mean loss up to step {unequal[0][0]:.0f} is {unequal[0][1]!r} and {unequal[1][1]!r}"
    if one["metrics"] != other["metrics"]:
        return f"the scores are {one['headline']} and {other['headline']}"
    folders = [store.predictions_folder(path, one["name"], one["run_id"]) for path in (one_dir, other_dir)]
    unequal_files = (
        f for f in sorted(folders[0].iterdir()) if f.read_bytes() != (folders[1] / f.name).read_bytes()
    )
    return next((f"the predictions in {file.name} differ" for file in unequal_files), "")
