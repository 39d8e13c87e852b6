"""`launcher=local`: the runs are carried out by worker processes of this machine, while the command runs."""

from collections.abc import Sequence

from bench.sweep import pool
from bench.sweep.launchers import Launcher
from bench.sweep.plan import Item


class LocalWorkers(Launcher):
    """A worker for each GPU or CPU core; `workers` sets another number."""

    def submit(self, items: Sequence[Item]) -> None:
        """Return when no run is left. Raises EnvironmentBroken, or KeyboardInterrupt if the sweep is stopped."""
        config = self.plan.config
        workers = config.workers or pool.default_workers(config.device)
        pool.carry_out(
            items,
            config,
            min(workers, len(items)),
            cancelled=self.plan.cancel_file(),
            beside=self.plan.beside(items),
        )


LAUNCHER = LocalWorkers
