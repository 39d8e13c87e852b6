"""What a model costs in use: measured by `bench cost`, or else noted by each run beside its training."""

from typing import Any, NamedTuple

import pandas as pd


class Source(NamedTuple):
    """Where times and memory come from."""

    device: str | None
    dense: dict[int, float] | None = (
        None  # rows of a batch -> the dense model's median in ms as `bench cost` measured it; None: it did not
    )
    tokens: int | None = None  # of each row; None: the texts of the task

    @property
    def small(self) -> int:
        """Return the rows of the smallest batch."""
        return min(self.dense or (1,))

    @property
    def large(self) -> int:
        """Return the rows of the largest batch."""
        return max(self.dense or (32,))


def source(dense: pd.DataFrame) -> Source:
    """Return the source for a section with these runs of the dense model: their first profile, at its longest rows, else most runs' device."""
    for profiles in dense.profiles.dropna():
        for device, profile in sorted(profiles.items(), key=lambda pair: (pair[0] == "cpu", pair[0])):
            tokens = max(cell["tokens"] for cell in profile["latency"])
            return Source(
                device,
                {cell["batch"]: cell["p50_ms"] for cell in profile["latency"] if cell["tokens"] == tokens},
                tokens,
            )
    devices = dense.device.mode()
    return Source(str(devices.iloc[0]) if len(devices) else None)


def profiled(profiles: dict[str, Any] | None, chosen: Source) -> tuple[dict[int, float], float | None]:
    """Return rows of a batch -> time in ms and the peak of memory in bytes, of a run's profile on the source's device.

    A time is the dense model's times the ratio to it, which compares answers of the same round: a shared machine is not as fast in all.
    """
    profile = (profiles or {}).get(str(chosen.device)) or {"latency": [], "peak_bytes": None}
    ratios = {
        cell["batch"]: cell["ratio_to_dense"] or 1.0
        for cell in profile["latency"]
        if cell["tokens"] == chosen.tokens
    }
    return {
        rows: time * ratios[rows] for rows, time in (chosen.dense or {}).items() if rows in ratios
    }, profile["peak_bytes"]
