"""The runs of a sweep on one machine: warm worker processes that cannot take each other down."""

import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from bench.errors import BenchError, EnvironmentBroken
from bench.identity import Prepared
from bench.run import execute, failure
from bench.store import Record

log = logging.getLogger("bench")


def default_workers(device: str) -> int:
    """Return one worker a GPU, or one a CPU core this process may use."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Interrupts:
    """Ctrl-C in a worker process: it stops a run, which writes its record; outside a run it stops the next one.

    Without this, Ctrl-C would kill a worker that is still importing or idle, as if its run had crashed.
    """

    running = False
    arrived = False

    @classmethod
    def receive(cls, *_: Any) -> None:
        cls.arrived = True
        if cls.running:
            raise KeyboardInterrupt

    @classmethod
    def execute(cls, prepared: Prepared) -> Record:
        if cls.arrived:
            raise KeyboardInterrupt
        cls.running = True
        try:
            return execute(prepared)
        finally:
            cls.running = False


def _start_worker(number: int, workers: int, device: str) -> None:
    from bench.cli import set_up_logging

    signal.signal(signal.SIGINT, Interrupts.receive)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked since the process began, see run_all
    set_up_logging()
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    torch.set_num_threads(max(1, default_workers("cpu") // workers))


def run_all(runs: Sequence[Prepared], workers: int | None) -> list[Record]:
    """Return the records of all runs, in the order in which they ended.

    A run whose process dies gets a `failed` record and a fresh process follows. Raises EnvironmentBroken as soon as a
    run finds that nothing would work, and KeyboardInterrupt after the running ones have written their records.
    """
    if not runs:
        return []
    device = runs[0].config.device
    count = min(workers or default_workers(device), len(runs))
    todo: queue.SimpleQueue[Prepared] = queue.SimpleQueue()
    for run in runs:
        todo.put(run)
    records: list[Record] = []
    fatal: list[BaseException] = []

    def work(number: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # this thread's; the processes it starts inherit it
        pool = None
        while not fatal:
            try:
                run = todo.get_nowait()
            except queue.Empty:
                break
            pool = pool or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker, (number, count, device))
            try:
                records.append(pool.submit(Interrupts.execute, run).result())
                log.info("%d of %d runs ended", len(records), len(runs))
            except BrokenProcessPool:
                pool = None
                records.append(failure(run, "failed", "The process of this run was killed or crashed; the system's log may say why."))
                log.error("%s | its process died; going on with a new one", run.name)
            except (BenchError, KeyboardInterrupt) as error:
                fatal.append(error)
        if pool is not None:
            pool.shutdown()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        fatal.append(KeyboardInterrupt())
        for thread in threads:
            thread.join()  # Ctrl-C reached the workers too: they write `interrupted` records and end
        raise
    for error in fatal:
        raise error if isinstance(error, (EnvironmentBroken, KeyboardInterrupt)) else EnvironmentBroken(str(error))
    return records
