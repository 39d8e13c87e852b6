"""How a sweep's progress is shown: a live view on a terminal, plain lines in a log."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bench import store
from bench.store import Record
from bench.sweep.plan import Item

log = logging.getLogger("bench")


class Screen(Progress):
    """What a terminal shows: the whole sweep, the running runs, and beneath them the best scores so far."""

    def __init__(self, *columns: ProgressColumn, console: Console, disable: bool) -> None:
        # task -> the best records: of the dense model, and of a compressed one
        self.best: dict[str, dict[str, Record]] = {}
        super().__init__(*columns, console=console, disable=disable)

    def add(self, record: Record) -> None:
        """Take a record that has ended into account."""
        headline, size = record["headline"], record["size"]
        if headline is None or size is None:
            return
        kind = "compressed" if size["byte_saving"] > 0 else "dense"
        known = self.best.setdefault(record["name"].split("/")[1], {})
        if kind not in known or _score(record) > _score(known[kind]):
            known[kind] = record

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the progress, and a table of the best scores once there are some."""
        yield from super().get_renderables()
        if self.best:
            table = Table("best so far", "dense", "compressed", "embedding", box=None)
            for row in self.scores():
                table.add_row(*row)
            yield table

    def scores(self) -> list[tuple[str, str, str, str]]:
        """Return each task with its best dense and compressed score, and the embedding of the latter."""
        return [
            (task, _text(known.get("dense")), _text(best := known.get("compressed")), _embedding(best))
            for task, known in sorted(self.best.items())
        ]


def _score(record: Record) -> float:
    headline = record["headline"]
    assert headline is not None
    return headline["value"] if headline["higher_is_better"] else -headline["value"]


def _text(record: Record | None) -> str:
    return f"{100 * record['headline']['value']:.1f}" if record and record["headline"] else ""


def _embedding(record: Record | None) -> str:
    """Return a compressed embedding's method, as the run's name has it, and what it saves."""
    if record is None or record["size"] is None:
        return ""
    return f"{record['name'].split('/')[2]}, {100 * record['size']['byte_saving']:.1f} % less"


class View:
    """A context that shows what `tell` reports. The time left follows from the runs' expected lengths.

    The best scores are those of `items` and of the records at `beside`, where there are any: the sweep's other runs.
    """

    def __init__(self, items: Sequence[Item], beside: Iterable[Path] = ()) -> None:
        known = [item.seconds for item in items if item.seconds]
        self._mean = sum(known) / len(known) if known else 1.0
        self._runs, self._ended = len(items), 0
        console = Console(stderr=True)
        self.live = console.is_terminal
        self._progress = Screen(
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
        for path in beside:
            self._add(path)

    def __enter__(self) -> "View":
        self._progress.start()
        self._describe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self.live or self._ended < self._runs:  # a log's last words then belong to what went wrong
            return
        for task, dense, compressed, embedding in self._progress.scores():
            parts = [f"dense {dense}"] if dense else []
            parts += [f"compressed {compressed} ({embedding})"] if compressed else []
            log.info("best on %s: %s", task, ", ".join(parts))

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
            self._add(Path(item.record))
            self._progress.advance(self._all, self._weight(item))
            self._describe()
            if not self.live:
                log.info("%d of %d runs ended", self._ended, self._runs)
            elif text != "ok":
                self._progress.console.print(f"{text} {item.name}", markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Print a worker's warning above the progress, as one line that only the terminal breaks."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _add(self, path: Path) -> None:
        with suppress(OSError, ValueError):
            self._progress.add(store.read(path))

    def _weight(self, item: Item) -> float:
        return item.seconds or self._mean

    def _describe(self) -> None:
        self._progress.update(self._all, description=f"{self._ended} of {self._runs} runs")
