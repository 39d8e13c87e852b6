"""A benchmark of compressed embeddings: how small can a language model's embedding table be?"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Return `load_compressed`, which loads an export. Its first use imports torch and transformers; `import bench` does not."""
    if name != "load_compressed":
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    from bench.export.folder import load_compressed

    return load_compressed
