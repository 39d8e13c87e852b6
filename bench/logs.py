"""The logger: progress on standard error."""

import logging
import os

log = logging.getLogger("bench")


def set_up_logging() -> None:
    """Send progress to standard error, one line an event, with the time."""
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True
    )
    log.setLevel(logging.INFO)
    for key, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(key, value)
