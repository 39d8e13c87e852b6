"""A worker: takes runs from the plan, one after another, through claims; shared by one machine and a cluster."""

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
    """What a worker is told: `ends` and `patience` are for a job whose time is limited."""

    threads: int  # for torch
    gpu: str | None  # for CUDA_VISIBLE_DEVICES; null: as it is
    time_limit: float | None  # minutes a run
    ends: float | None = None  # when this machine takes its workers away, time.time()
    patience: float | None = None  # seconds to wait for runs that others hold; null: until they end
    quiet: bool = False
    runs_at_once: int = 1
    sharing: int = 1  # workers that use the same GPU, this one included


class Signals:
    """What stops the program stops a run, which writes an `interrupted` record; outside a run it stops the worker."""

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
    """Return whether the run has got a record since it was planned; an interrupted or unreadable one does not count."""
    path = Path(item.record)
    stamp = store.stamp(path)
    if stamp is None or stamp == item.stamp:
        return False
    try:
        return store.read(path)["status"] != "interrupted"
    except (ValueError, OSError):
        return False


def take(items: Sequence[Item], settings: Settings) -> Iterator[tuple[Item, Claim]]:
    """Yield runs with the claims on them until all are finished, or held by others for longer than patience."""
    left, waited, first = list(items), 0.0, True
    while left:
        held = []
        for item in left:
            fits = (
                first
                or settings.ends is None
                or time.time() + (item.seconds or 0) * settings.runs_at_once < settings.ends
            )
            if not fits or finished(item):
                continue
            claim = claims.take(Path(item.record))
            if claim is None:
                held.append(item)
            elif finished(item):  # by another, between the two looks
                claim.release()
            else:
                first, waited = False, 0.0
                yield item, claim
        left = held
        if left:
            if settings.patience is not None and waited > settings.patience:
                return
            time.sleep(POLL)
            waited += POLL


def companions(item: Item, items: Sequence[Item], settings: Settings) -> Iterator[tuple[Item, Claim]]:
    """Yield runs to train together with `item`, with the claims on them: the task and the recipe are the same, and nobody has begun them."""
    wanted = settings.runs_at_once - 1
    for other in items:
        if (
            wanted
            and item.alike
            and other.alike == item.alike
            and other is not item
            and not finished(other)
            and claims.untouched(Path(other.record))
        ):
            if not (claim := claims.take(Path(other.record))):
                continue
            if finished(other):  # by another, between the two looks
                claim.release()
                continue
            wanted -= 1
            yield other, claim


def carry_out(held: Sequence[tuple[Item, Claim]], settings: Settings, say: Callable[..., None]) -> list[str]:
    """Return the statuses of the records that are there when the runs have ended. Raises what `execute` raises."""
    from bench.runs.execute import execute, failure
    from bench.runs.identity import prepare
    from bench.runs.side_by_side import execute_together
    from bench.settings.compose import compose_config

    runs = [prepare(compose_config([*item.overrides, f"workers={settings.sharing}"])) for item, _ in held]
    for (item, _), prepared in zip(held, runs, strict=True):
        if prepared.run_id != item.run_id:
            raise EnvironmentBroken(
                f"{item.name}: code, configuration or data changed since the sweep was planned: start it again."
            )
        move_unreadable(Path(item.record))
    if (deaths := held[0][1].deaths) >= DEATHS:
        return [
            failure(
                runs[0],
                "failed",
                f"The process of this run was killed or crashed {deaths} times; the system's log may say why.",
            )["status"]
        ]
    items = [item for item, _ in held]
    if len(runs) > 1:
        for run in runs:
            say("begin", run.run_id, run.name)
        if statuses := _within_time(items, runs, execute_together, settings):
            return statuses
        if gpu_is_broken():
            os._exit(1)  # the claims stay behind: each run counts one death, and trains alone from then on
    statuses = []
    for item, run in zip(items, runs, strict=True):
        free_gpu()
        say("begin", run.run_id, run.name)  # so does its own time
        statuses += _within_time([item], [run], lambda one: [execute(one[0])], settings)
    return statuses


def _within_time(
    items: Sequence[Item],
    runs: Sequence[Prepared],
    execute: Callable[[Sequence[Prepared]], list[Record] | None],
    settings: Settings,
) -> list[str]:
    """Return the statuses of the runs' records, `timeout` for those that had none when their time was over; empty if `execute` returns None."""
    from bench.runs.execute import failure

    try:
        with limited(settings.time_limit):
            return [record["status"] for record in execute(runs) or []]
    except TimeLimit as error:  # it came while several trained at once, or while the record was being written
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
    """Give back the GPU memory that ended runs left in torch's cache: other workers may share the card."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def aside(record: Path) -> Path:
    """Return where a record is moved that cannot be read: <record>.corrupt."""
    return record.with_name(f"{record.name}.corrupt")


def move_unreadable(path: Path) -> None:
    """Move a record that cannot be read aside and name it."""
    try:
        store.read(path)
    except FileNotFoundError:
        return
    except (ValueError, OSError) as error:
        path.replace(aside(path))
        log.error(
            "%s could not be read (%s): moved to %s.corrupt, the run is done again", path, error, path.name
        )


def work(items: Sequence[Item], settings: Settings, say: Callable[..., None]) -> bool:
    """Carry out runs until none is left; return False if a fresh process should go on (a failure can leave a GPU broken).

    `say(event, run_id, text)` tells the launcher of each `begin` and `end`.
    """
    for item, claim in take(items, settings):
        held = [(item, claim), *([] if claim.deaths else companions(item, items, settings))]
        with ExitStack() as stack:
            for _, own in held:
                stack.callback(own.release)
                stack.enter_context(own.beating())
            statuses = carry_out(held, settings, say)
            free_gpu()
        for (one, _), status in zip(held, statuses, strict=True):
            say("end", one.run_id, status)
        if not {*statuses} <= {"ok", "diverged"}:
            return False
    return True


class Forwarded(logging.Handler):
    """Sends what is logged to the launcher."""

    def __init__(self, say: Callable[[str, str, str], None]) -> None:
        super().__init__()
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say("warning", "", self.format(record))


def main(connection: Any, plan: Path, settings: Settings) -> None:
    """The worker's process: `plan` holds the items, what it tells goes through `connection`; exits when no run is left."""
    Signals.listen()
    if settings.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu  # before CUDA is touched
    say = partial(_send, connection)
    try:
        set_up_logging()
        if (
            settings.quiet
        ):  # the launcher draws on the terminal, and prints warnings where they do not tear it
            logging.getLogger().handlers = [Forwarded(say)]
            log.setLevel(logging.WARNING)
        import torch

        import bench.runs.execute  # noqa: F401 - what every run needs

        gc.freeze()  # or the garbage collector would look through it between runs and for every graph that is captured
        torch.set_num_threads(settings.threads)
        say("ready", "", "")
        items = [Item(**item) for item in json.loads(plan.read_text())]
        last = ("left" if work(items, settings, say) else "replace", "", "")
    except BenchError as error:
        last = ("broken", "", str(error))
    except KeyboardInterrupt:
        last = ("stopped", "", "")
    Signals.arrived = True  # nothing is left to be stopped: what Python does at its end stays undisturbed
    with suppress(KeyboardInterrupt):
        say(*last)


def _send(connection: Any, event: str, run_id: str, text: str) -> None:
    try:
        connection.send((event, run_id, text))
    except BrokenPipeError:  # the launcher was killed: what is finished is on disk
        raise KeyboardInterrupt from None
