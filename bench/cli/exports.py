"""Verbs that show a model, or write it for others."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from bench.export import command
from bench.export import demo as demonstration
from bench.export.folder import files
from bench.logs import log


def export(words: Sequence[str], onnx: bool, int8: bool, **form: Any) -> int:
    """Write a model to a folder and list its files with their bytes."""
    to = command.export(words, command.Form(onnx=onnx or int8, int8=int8, **form))
    for name, size in files(to).items():
        print(f"{size:14,}  {to / name}")
    return 0


def demo(words: Sequence[str]) -> int:
    """Print the sentences that a dense and a compressed model judge."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    if console.is_terminal:
        log.setLevel(logging.WARNING)  # the spinner stands for the lines of the training
    with console.status("two models are trained, minutes on a CPU; the next time they are kept"):
        for table in demonstration.tables(words):
            console.print("", table)
    return 0
