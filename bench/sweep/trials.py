"""Trials of an Optuna study that several processes share: each belongs to the process that holds its claim."""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import store
from bench.errors import EnvironmentBroken
from bench.store import claims
from bench.store.claims import Claim

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.storages.journal import JournalFileSymlinkLock
    from optuna.trial import FrozenTrial

POLL = 1.0  # seconds between looks at trials that other processes hold


def _drop_half_line(journal: Path, lock: "JournalFileSymlinkLock") -> None:
    """Drop the end of a journal's last line that a crash or a full disk cut off: what comes after it could not be read."""
    lock.acquire()  # others append under it
    try:
        written = journal.read_bytes() if journal.exists() else b""
        if written and not written.endswith(b"\n"):
            os.truncate(journal, written.rfind(b"\n") + 1)
    finally:
        lock.release()


class Trials:
    """The trials in `folder`: new, or as earlier processes left them. `runs` are the ids of all runs that they may do."""

    def __init__(self, folder: Path, runs: Sequence[str]) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
        except ImportError as error:
            raise EnvironmentBroken(
                "bench search needs optuna: pip install -c constraints.txt -e '.[search]'."
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # The lock is a link to the journal's path as it is given: a relative one would lead nowhere, and a dead process's never end.
        self.folder, journal = folder, folder.absolute() / "journal.log"
        _drop_half_line(journal, JournalFileSymlinkLock(str(journal)))
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            sampler=optuna.samplers.TPESampler(),  # learns from few trials, also while others still run
            study_name=store.sha256("\n".join(sorted(runs)))[:12],  # other runs are another study
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )

    def all(self) -> list["FrozenTrial"]:
        """Return the study's trials as they are now."""
        return self.study.get_trials(deepcopy=False)

    def take(self, number: int, total: int) -> list[tuple["Trial", Claim]]:
        """Return up to `number` trials with their claims: those that dead processes left, then new ones.

        The study gets no new trial from `total` on. Wait for trials that others hold; return none when all have ended.
        """
        while True:
            running = [trial.number for trial in self.all() if not trial.state.is_finished()]
            taken = list(itertools.islice(self._adopt(running), number))
            while len(taken) < number and len(self.all()) < total:
                trial = self.study.ask()
                if claim := claims.take(self._claimed(trial.number)):  # else another process adopted it
                    taken.append((trial, claim))
            if taken or not running:
                return taken
            time.sleep(POLL)

    def end(self, trial: "Trial", outcome: str, values: Sequence[float] | None = None) -> None:
        """End the trial with its values, or without as pruned or, for the outcome "failed", as failed."""
        from optuna.trial import TrialState

        trial.set_user_attr("outcome", outcome)
        without = TrialState.FAIL if outcome == "failed" else TrialState.PRUNED
        self.study.tell(trial, values, state=None if values else without)

    def _adopt(self, numbers: Sequence[int]) -> Iterator[tuple["Trial", Claim]]:
        """Yield the running trials that nobody holds. What such a trial has suggested, it suggests again."""
        from optuna import Trial

        for number in numbers:
            if claim := claims.take(self._claimed(number)):
                now: Any = self.all()[number]
                if now.state.is_finished():  # by another process, between the two looks
                    claim.release()
                else:
                    yield Trial(self.study, now._trial_id), claim  # as Study.ask makes a trial

    def _claimed(self, number: int) -> Path:
        return self.folder / self.study.study_name / f"trial-{number}.json"
