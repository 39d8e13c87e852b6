"""A worker: a process that takes runs from the plan, one after another, through claims. All launchers use it."""

import gc
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from bench import store
from bench.errors import BenchError, EnvironmentBroken, TimeLimit
from bench.logs import set_up_logging
from bench.runs.identity import Prepared
from bench.stopping import heard
from bench.store import Record, claims
from bench.store.claims import Claim
from bench.sweep.plan import Item

DEATHS = 3  # holders of one run that may die before it counts as failed
POLL = 1.0  # seconds between looks at runs that others hold

log = logging.getLogger("bench")


@dataclass(frozen=True)
class Settings:
    """The conditions of a worker. `ends` and `patience` are for a job whose time is limited."""

    threads: int  # for torch
    gpu: str | None  # for CUDA_VISIBLE_DEVICES; null: as it is
    time_limit: float | None  # minutes a run
    ends: float | None = None  # time.time() at which the job ends
    patience: float | None = None  # seconds to wait for runs that other workers hold; null: until they end
    quiet: bool = False  # log through the launcher, and warnings only
    runs_at_once: int = 1  # runs trained side by side
    sharing: int = 1  # workers that use the same GPU, this worker included


class Signals:
    """A signal that stops the program stops its run, which writes an `interrupted` record; between runs it stops the worker."""

    arrived = False

    @classmethod
    def listen(cls) -> None:
        for number in (*heard(), signal.SIGUSR2):
            signal.signal(number, cls.receive)
        # blocked since the process began, see pool.py
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    @classmethod
    def receive(cls, number: int, _: Any) -> None:
        if not cls.arrived:  # a second signal must not disturb the writing of the record
            cls.arrived = True
            raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")


@contextmanager
def limited(minutes: float | None) -> Iterator[None]:
    """Raise TimeLimit in the main thread after so many minutes."""

    def over(*_: Any) -> NoReturn:
        raise TimeLimit(f"The run took longer than launcher.time_limit ({minutes:g} minutes).")

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, (minutes or 0) * 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def finished(item: Item) -> bool:
    """Return whether the run has a record that is newer than the plan; an interrupted or unreadable record does not count."""
    path = Path(item.record)
    stamp = store.stamp(path)
    if stamp is None or stamp == item.stamp:
        return False
    try:
        return store.read(path)["status"] != "interrupted"
    except (ValueError, OSError):
        return False


def take(items: Sequence[Item], settings: Settings) -> Iterator[tuple[Item, Claim]]:
    """Yield runs with their claims until all are finished, or other workers have held the rest for longer than patience."""
    left, waited, first = list(items), 0.0, True
    while left:
        held = []
        for item in left:
            needed = (item.seconds or 0) * settings.runs_at_once
            fits = first or settings.ends is None or time.time() + needed < settings.ends
            if not fits or finished(item):
                continue
            if claim := _claim(item):
                first, waited = False, 0.0
                yield item, claim
            else:
                held.append(item)
        left = held
        if left:
            if settings.patience is not None and waited > settings.patience:
                return
            time.sleep(POLL)
            waited += POLL


def companions(item: Item, items: Sequence[Item], settings: Settings) -> list[tuple[Item, Claim]]:
    """Return runs to train beside `item`, with their claims: of the same task and recipe, and never begun before."""
    others = (
        other
        for other in items
        if item.alike
        and other.alike == item.alike
        and other is not item
        and not finished(other)
        and claims.untouched(Path(other.record))
    )
    claimed = ((other, claim) for other in others if (claim := _claim(other)))
    return list(islice(claimed, settings.runs_at_once - 1))


def _claim(item: Item) -> Claim | None:
    """Return a claim on the run, or None where another worker holds it or has just finished it."""
    claim = claims.take(Path(item.record))
    if claim and finished(item):  # by another worker, between the two looks
        claim.release()
        return None
    return claim


def carry_out(held: Sequence[tuple[Item, Claim]], settings: Settings, say: Callable[..., None]) -> list[str]:
    """Carry the runs out and return the statuses of their records. Raises what `execute` raises."""
    from bench.runs.execute import execute, failure
    from bench.runs.identity import prepare
    from bench.runs.side_by_side import execute_together
    from bench.settings.compose import compose_config

    # Prepare the runs as they were planned.
    items = [item for item, _ in held]
    runs = [prepare(compose_config([*item.overrides, f"workers={settings.sharing}"])) for item in items]
    for item, run in zip(items, runs, strict=True):
        if run.run_id != item.run_id:
            raise EnvironmentBroken(
                f"{item.name}: code, configuration or data changed since the sweep was planned: start it again."
            )
        store.move_unreadable(Path(item.record))
    if (deaths := held[0][1].deaths) >= DEATHS:
        words = f"The process of this run was killed or crashed {deaths} times; the system's log may say why."
        return [failure(runs[0], "failed", words)["status"]]

    # Train several side by side, if there are several.
    if len(runs) > 1:
        for run in runs:
            say("begin", run.run_id, run.name)
        if statuses := _within_time(items, runs, execute_together, settings):
            return statuses
        if gpu_is_broken():
            os._exit(1)  # the claims stay behind: each run counts one death, and trains alone from then on

    # Train one after another, each with the whole time limit.
    statuses = []
    for item, run in zip(items, runs, strict=True):
        free_gpu()
        say("begin", run.run_id, run.name)
        statuses += _within_time([item], [run], lambda alone: [execute(alone[0])], settings)
    return statuses


def _within_time(
    items: Sequence[Item],
    runs: Sequence[Prepared],
    execute: Callable[[Sequence[Prepared]], list[Record] | None],
    settings: Settings,
) -> list[str]:
    """Return the statuses of the runs' records, empty if `execute` returns None.

    Runs without a record when their time is over get a `timeout` record.
    """
    from bench.runs.execute import failure

    try:
        with limited(settings.time_limit):
            return [record["status"] for record in execute(runs) or []]
    except TimeLimit as error:
        # It came while several runs trained side by side, or while a record was being written.
        return [
            store.read(Path(item.record))["status"]
            if finished(item)
            else failure(run, "timeout", str(error))["status"]
            for item, run in zip(items, runs, strict=True)
        ]


def gpu_is_broken() -> bool:
    """Return whether an error of CUDA has left this process unable to use its GPU."""
    import torch

    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def free_gpu() -> None:
    """Return the GPU memory in torch's cache that ended runs left: other workers may share the card."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def work(items: Sequence[Item], settings: Settings, say: Callable[..., None]) -> bool:
    """Carry out runs until none is left; return False where a fresh process should go on, as a failure can break a GPU.

    `say(event, run_id, text)` reports each `begin` and `end` to the launcher.
    """
    for item, claim in take(items, settings):
        held = [(item, claim), *([] if claim.deaths else companions(item, items, settings))]
        with ExitStack() as stack:
            for _, each in held:
                stack.callback(each.release)
                stack.enter_context(each.beating())
            statuses = carry_out(held, settings, say)
            free_gpu()
        if Signals.arrived:
            raise KeyboardInterrupt  # a library swallowed it, and the run went on to its end
        for (ended, _), status in zip(held, statuses, strict=True):
            say("end", ended.run_id, status)
        if not {*statuses} <= {"ok", "diverged"}:
            return False
    return True


class Forwarded(logging.Handler):
    """A log handler that sends messages to the launcher."""

    def __init__(self, say: Callable[[str, str, str], None]) -> None:
        super().__init__()
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say("warning", "", self.format(record))


def main(connection: Any, plan: Path, settings: Settings) -> None:
    """Work in this process until no run is left. `plan` is the file of items; events go through `connection`."""
    Signals.listen()
    if settings.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu  # before CUDA is touched
    os.environ.setdefault("RAYON_NUM_THREADS", str(settings.threads))  # of the tokenizers
    say = partial(_send, connection)
    try:
        set_up_logging()
        if settings.quiet:  # the launcher draws on the terminal, and prints warnings above its drawing
            logging.getLogger().handlers = [Forwarded(say)]
            log.setLevel(logging.WARNING)
        import torch

        import bench.runs.execute  # noqa: F401 - what every run needs

        gc.freeze()  # or the garbage collector would look through it between runs and for every graph that is captured
        torch.set_num_threads(settings.threads)
        say("ready", "", "")
        items = [Item(**item) for item in json.loads(plan.read_text())]
        last = ("left" if work(items, settings, say) else "replace", "", "")
    except KeyboardInterrupt:
        last = ("stopped", "", "")
    except Exception as error:
        # Other people's code can turn the signal's KeyboardInterrupt into an error: Hydra does while it reads a file.
        if not Signals.arrived and not isinstance(error, BenchError):
            raise
        last = ("stopped", "", "") if Signals.arrived else ("broken", "", str(error))
    Signals.arrived = True  # nothing is left to stop: a signal must not disturb Python's exit
    with suppress(KeyboardInterrupt):
        say(*last)


def _send(connection: Any, event: str, run_id: str, text: str) -> None:
    try:
        connection.send((event, run_id, text))
    except BrokenPipeError:  # the launcher was killed: what is finished is on disk
        raise KeyboardInterrupt from None
