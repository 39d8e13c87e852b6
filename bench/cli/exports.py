"""The verb that writes a model for others."""

from collections.abc import Sequence
from typing import Any

from bench.export import command
from bench.export.folder import files


def export(words: Sequence[str], onnx: bool, int8: bool, **form: Any) -> int:
    """Write a model to a folder and list its files with their bytes."""
    to = command.export(words, command.Form(onnx=onnx or int8, int8=int8, **form))
    for name, size in files(to).items():
        print(f"{size:14,}  {to / name}")
    return 0
