"""The workers of one machine: warm processes that cannot take each other down, and that are replaced when they die."""

import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from joblib import cpu_count

from bench.errors import EnvironmentBroken
from bench.settings.schema import RunConfig
from bench.stopping import deafen, stoppable
from bench.store import claims, write_atomically
from bench.sweep import worker
from bench.sweep.plan import Item
from bench.sweep.view import View
from bench.sweep.worker import Settings

log = logging.getLogger("bench")
# seconds in which a worker must write its record when it is stopped, or when a run's time is over
GRACE = 30.0
STILLBORN = 5  # workers in a row that die before their first run: something is wrong with the machine


def default_workers(device: str) -> int:
    """Return the number of GPUs, or of CPU cores that the affinity and the container's quota leave to this process."""
    return gpu_count(device) or int(cpu_count())


def gpu_count(device: str) -> int:
    """Return the number of GPUs that this process may use."""
    return torch.cuda.device_count() if device != "cpu" else 0


def gpus(device: str, workers: int) -> list[str | None]:
    """Return each worker's CUDA_VISIBLE_DEVICES: the GPUs in turn, None on the CPU."""
    count = gpu_count(device)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",")[:count] if visible else [str(number) for number in range(count)]
    return [names[number % count] if count else None for number in range(workers)]


@dataclass
class Slot:
    """A worker's process and its last words."""

    settings: Settings
    process: BaseProcess
    connection: Connection
    run_id: str | None = None  # of its present run
    begun: float = 0.0
    last: str = ""  # event
    stillborn: int = 0  # workers before it in this slot that died before their first run
    hears: bool = True  # the connection is open


class Pool:
    """Workers that carry out `items`, together with all others that take runs from the same results folder."""

    def __init__(
        self, items: Sequence[Item], settings: Sequence[Settings], view: View, cancelled: Path
    ) -> None:
        self.view, self.cancelled = view, cancelled
        self.named = {item.run_id: item for item in items}
        self.begun = claims.clock(cancelled.parent)
        # A file, not an argument: more than a pipe's 64 KiB would block the pool for ever if a worker died before it read.
        self.plan = cancelled.with_name(f"{cancelled.stem}-{uuid.uuid4().hex[:8]}.json")
        write_atomically(self.plan, json.dumps([asdict(item) for item in items]))
        self.slots = [self._start(each) for each in settings]

    def run(self) -> None:
        """Work until no run is left. Raises EnvironmentBroken where no run could succeed, KeyboardInterrupt if stopped."""
        try:
            while self.slots:
                sources = [slot.connection for slot in self.slots if slot.hears]
                multiprocessing.connection.wait(
                    [*sources, *(slot.process.sentinel for slot in self.slots)], timeout=1
                )
                for slot in list(self.slots):
                    # before its last words are read, or some could be missed
                    ended = slot.process.exitcode is not None
                    self._hear(slot)
                    self._check_time(slot)
                    if ended:
                        self._follow(slot)
                if self.cancelled.exists() and self.cancelled.stat().st_mtime >= self.begun:
                    raise KeyboardInterrupt("cancelled")
        finally:
            self.stop()

    def stop(self) -> None:
        """End all workers. The running ones write `interrupted` records, whatever signals come meanwhile."""
        deafen()
        for slot in self.slots:
            slot.process.terminate()
        end = time.monotonic() + GRACE
        for slot in self.slots:
            slot.process.join(max(0, end - time.monotonic()))
            if slot.process.exitcode is None:
                slot.process.kill()
                slot.process.join()
        self.slots = []
        self.plan.unlink(missing_ok=True)

    def _start(self, settings: Settings, stillborn: int = 0) -> Slot:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=worker.main, args=(sender, self.plan, settings))
        # The worker inherits the mask: no Ctrl-C reaches it before it listens.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sender.close()
        return Slot(settings, process, receiver, stillborn=stillborn)

    def _hear(self, slot: Slot) -> None:
        try:
            while slot.hears and slot.connection.poll():
                event, run_id, text = slot.connection.recv()
                if event == "warning":
                    self.view.warn(text)
                    continue
                slot.last = event
                slot.run_id, slot.begun = run_id if slot.last == "begin" else None, time.monotonic()
                if slot.last == "broken":
                    raise EnvironmentBroken(text)
                if slot.last in ("begin", "end"):
                    self.view.tell(slot.last, self.named[run_id], text)
        except (EOFError, OSError):
            slot.hears = False

    def _check_time(self, slot: Slot) -> None:
        limit = slot.settings.time_limit
        if limit is None or slot.run_id is None or time.monotonic() - slot.begun < limit * 60 + GRACE:
            return
        slot.process.kill()  # the alarm did not reach the worker, which hangs outside Python
        slot.process.join()
        record_timeout(self.named[slot.run_id], limit)
        self.view.tell("end", self.named[slot.run_id], "timeout")
        slot.run_id = None

    def _follow(self, slot: Slot) -> None:
        """Start a new worker for one that ended, unless that had no run left or was stopped."""
        self.slots.remove(slot)
        if slot.last == "stopped":
            log.error("a worker was stopped by a signal from outside; the others go on without it")
        if slot.last in ("left", "stopped"):
            return
        stillborn = slot.stillborn + 1 if slot.last in ("", "ready") else 0
        if stillborn == STILLBORN:
            raise EnvironmentBroken(
                f"A worker process ended {STILLBORN} times before its first run (exit status "
                f"{slot.process.exitcode}): its last message stands above."
            )
        if slot.last != "replace":
            log.error(
                "%s | its process was killed or crashed (exit status %s); a new worker replaces it",
                self.named[slot.run_id].name if slot.run_id else "no run",
                slot.process.exitcode,
            )
        if slot.run_id:
            self.view.tell("lost", self.named[slot.run_id], "")
        self.slots.append(self._start(slot.settings, stillborn))


def carry_out(
    items: Sequence[Item],
    config: RunConfig,
    workers: int,
    *,
    cancelled: Path,
    beside: Sequence[Path],
    ends: float | None = None,
    patience: float | None = None,
) -> None:
    """Carry the runs out with `workers` processes. Raises EnvironmentBroken, or KeyboardInterrupt if stopped.

    `beside` are the paths of the records of the sweep's other runs, whose scores are shown with those of these.
    """
    with stoppable(), View(items, beside) as view:
        visible = gpus(config.device, workers)
        settings = [
            Settings(
                threads=max(1, default_workers("cpu") // workers),
                gpu=gpu,
                time_limit=config.launcher.time_limit,
                ends=ends,
                patience=patience,
                quiet=view.live,
                runs_at_once=config.launcher.runs_at_once,
                sharing=visible.count(gpu),
            )
            for gpu in visible
        ]
        Pool(items, settings, view, cancelled).run()


def record_timeout(item: Item, limit: float) -> None:
    """Write the `timeout` record of a run whose process had to be killed."""
    from bench.runs.execute import failure
    from bench.runs.identity import prepare
    from bench.settings.compose import compose_config

    if claim := claims.take(Path(item.record)):
        words = f"The run took longer than launcher.time_limit ({limit:g} minutes) and did not react: its process was killed."
        failure(prepare(compose_config(item.overrides)), "timeout", words)
        claim.release()
