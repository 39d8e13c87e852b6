"""The verb that downloads."""

from collections.abc import Sequence

from bench import fetch as downloads
from bench.errors import ConfigError


def fetch(words: Sequence[str], models: Sequence[str], tasks: Sequence[str]) -> int:
    """Download models and data, and list each with its bytes and its folder."""
    if not models and not tasks:
        raise ConfigError("Nothing to fetch: name --models NAME,... or --tasks NAME,....")
    for item in downloads.fetch(models, tasks):
        print(f"{item.name:24} {item.bytes / 1e6:10,.1f} MB  {item.folder}", flush=True)
    return 0
