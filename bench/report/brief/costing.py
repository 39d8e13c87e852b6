"""What keeping a model loaded and answering costs, from a price list and measured sizes and times."""

import math
from typing import NamedTuple

from bench.errors import ConfigError
from bench.report.latency import InUse
from bench.settings.schema import PriceConfig

GB = 10**9
HOUR_MS = 3_600_000


class Bill(NamedTuple):
    """A month's cost of a configuration, with the intermediate numbers."""

    fit: int  # replicas whose resident memory fits in an instance
    for_memory: int  # instances that all replicas need
    hours: float | None  # hours of work a day; None where no latency was measured
    for_work: int | None  # instances that the work needs
    instances: int  # the larger of both
    monthly: float  # in the price list's currency


def check(price: PriceConfig) -> None:
    """Raise ConfigError for a number that a price list cannot hold."""
    for key in ("memory_gb", "replicas", "utilisation", "hours_per_month"):
        if not getattr(price, key) > 0:
            raise ConfigError(f"price.{key} ({getattr(price, key)}) must be greater than 0.")
    if price.utilisation > 1:
        raise ConfigError(f"price.utilisation ({price.utilisation}) must be at most 1.")
    for key in ("price_per_gpu_hour", "requests_per_day"):
        if (getattr(price, key) or 0) < 0:
            raise ConfigError(f"price.{key} ({getattr(price, key)}) must be 0 or greater.")


def bill(price: PriceConfig, used: InUse, batch: int) -> Bill | None:
    """Return the month's bill from a model's measured resident memory, and its time for `batch` requests at once.

    None without a price or a measurement of memory, or where one replica exceeds an instance's memory.
    """
    fit = int(price.memory_gb * GB // used.resident) if used.resident else 0
    if price.price_per_gpu_hour is None or fit == 0:
        return None
    for_memory = math.ceil(price.replicas / fit)
    hours = None if used.large is None else price.requests_per_day * used.large / batch / HOUR_MS
    for_work = None if hours is None else math.ceil(hours / (24 * price.utilisation))
    instances = max(for_memory, for_work or 0)
    monthly = instances * price.price_per_gpu_hour * price.hours_per_month
    return Bill(fit, for_memory, hours, for_work, instances, monthly)
