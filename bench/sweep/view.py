"""How a sweep's progress is shown: a live view on a terminal, plain lines in a log."""

import logging
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.sweep.plan import Item

log = logging.getLogger("bench")


class View:
    """A context that shows what `tell` reports. The time left follows from the runs' expected lengths."""

    def __init__(self, items: Sequence[Item]) -> None:
        known = [item.seconds for item in items if item.seconds]
        self._mean = sum(known) / len(known) if known else 1.0
        self._runs, self._ended = len(items), 0
        console = Console(stderr=True)
        self.live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
        )
        self._all = self._progress.add_task("", total=sum(map(self._weight, items)) or 1)
        self._running: dict[str, TaskID] = {}

    def __enter__(self) -> "View":
        self._progress.start()
        self._describe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def tell(self, event: str, item: Item, text: str) -> None:
        """Show that a worker began a run ("begin"), ended it with the status `text` ("end"), or died with it ("lost")."""
        if event == "begin":
            if item.run_id not in self._running:  # a run begins twice where training side by side failed
                self._running[item.run_id] = self._progress.add_task(item.name, total=None)
            return
        if item.run_id in self._running:
            self._progress.remove_task(self._running.pop(item.run_id))
        if event == "end":
            self._ended += 1
            self._progress.advance(self._all, self._weight(item))
            self._describe()
            if not self.live:
                log.info("%d of %d runs ended", self._ended, self._runs)
            elif text != "ok":
                self._progress.console.print(f"{text} {item.name}", markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Print a worker's warning above the progress, as one line that only the terminal breaks."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _weight(self, item: Item) -> float:
        return item.seconds or self._mean

    def _describe(self) -> None:
        self._progress.update(self._all, description=f"{self._ended} of {self._runs} runs")
