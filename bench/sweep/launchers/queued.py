"""What launchers share whose jobs wait in a queue and go on without the command that submitted them."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.store import claims
from bench.sweep.launchers import Ending, Launcher
from bench.sweep.plan import Item
from bench.sweep.worker import finished

log = logging.getLogger("bench")
POLL = 3.0  # seconds between two looks at the queue
SETTLE = 30.0  # seconds until a file written on one node is seen on all others


class QueuedLauncher(Launcher):
    """A launcher that submits jobs. A subclass has `submit`, `jobs`, `cancel` and `busy`."""

    detached = True

    def wait(self, items: Sequence[Item]) -> Ending:
        """Return how the jobs ended, once all runs have records, or no job is left and nobody works on a run."""
        shown, quiet_since = None, None
        while True:
            jobs, done = self.jobs(), sum(map(finished, items))
            states = Counter(
                f"{job.state} {job.reason}" if job.state == "PENDING" else job.state for job in jobs or []
            )
            if (done, states) != shown:
                shown = done, states
                queue = [f"{'?' if jobs is None else len(jobs)} jobs in the queue"]
                queue += [f"{number} {state}" for state, number in sorted(states.items())]
                log.info("%d of %d runs ended, %s", done, len(items), ", ".join(queue))
            working = jobs is None or jobs or any(claims.holder(Path(item.record)) for item in items)
            quiet_since = None if working else quiet_since or time.monotonic()
            settled = quiet_since is not None and time.monotonic() - quiet_since > SETTLE
            if done == len(items) or settled:
                return self.ending()
            time.sleep(POLL)

    def ending(self) -> Ending:
        """Return how the jobs of the last submission ended."""
        return Ending([], retryable=True)
