"""The verb that writes a model for others."""

from collections.abc import Sequence
from typing import Any

from bench.export import command


def export(words: Sequence[str], onnx: bool, int8: bool, **form: Any) -> int:
    """Write a run's model to a folder and list its files with their bytes."""
    to = command.export(words, command.Form(onnx=onnx or int8, int8=int8, **form))
    for path in sorted(to.iterdir()):
        print(f"{path.stat().st_size:14,}  {path}")
    return 0
