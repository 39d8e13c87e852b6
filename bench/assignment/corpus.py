"""The text that a contextual assignment reads."""

import hashlib
from pathlib import Path

from bench.errors import DataError


def passages(corpus: str) -> list[str]:
    """Return the non-empty lines of the text file `corpus`; raises DataError where there are none or it is not UTF-8."""
    try:
        lines = [line.strip() for line in Path(corpus).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"assignment.corpus ({corpus}) cannot be read: {error}; give a UTF-8 text file, one passage a line, "
                        "or assignment.corpus=task.") from error
    if not any(lines):
        raise DataError(f"assignment.corpus ({corpus}) is empty: give a text file with one passage a line.")
    return [line for line in lines if line]


def identity(corpus: str) -> str:
    """Return "task" (the task's own training texts), or the SHA-256 of the file's passages."""
    return corpus if corpus == "task" else hashlib.sha256("\n".join(passages(corpus)).encode()).hexdigest()
