"""The logger: progress on standard error."""

import logging
import os
import warnings

log = logging.getLogger("bench")


def set_up_logging() -> None:
    """Log progress to standard error, one line an event with the time, and silence the libraries."""
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True
    )
    log.setLevel(logging.INFO)
    # A text of 500,000 passages takes minutes on one core. Set, so that no fork warns and switches it off; no fork of ours tokenises.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"torch\._inductor")  # the compiler's advice on speed
