"""A split's columns in the form that its task needs. What cannot be read without guessing is refused in a sentence."""

import logging

import numpy as np
import pyarrow as pa

from bench.errors import DataError
from bench.settings.schema import TaskConfig
from bench.tasks.sources import Raw, Request

log = logging.getLogger("bench")
TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
# Writers without a text type (old Hive and Spark) store UTF-8 as bytes.
BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column without nulls as an array. np.asarray would import pandas, which takes a second."""
    return np.from_dlpack(column.combine_chunks())


def checked(raw: Raw, task: TaskConfig, request: Request, labelled: bool) -> pa.Table:
    """Return the table with text columns (string), `label` (int64; float32 for a regression), idx and groups.

    Raises DataError where the data contradict the task. With `labelled=False` labels may be hidden or absent.
    """
    table, names = raw.table, raw.table.column_names
    if not table.num_rows:
        raise DataError(
            f"{request} has no rows: the file is empty or half-downloaded; get it again or select another."
        )
    keys = dict.fromkeys(task.columns, "columns") | ({task.label_column: "label_column"} if labelled else {})
    for column, key in keys.items():
        if column not in names:
            raise DataError(f"task.{key}: {request} has no column '{column}'; it has {', '.join(names)}.")
    for column in dict.fromkeys([*task.columns, task.label_column, "idx", *task.groups]):
        if names.count(column) > 1:
            raise DataError(
                f"{request} has {names.count(column)} columns named '{column}': keep the right one and rename the others."
            )
    if raw.class_names and task.labels and {*raw.class_names} != {*task.labels}:
        raise DataError(
            f"task.labels ({', '.join(task.labels)}) are not the classes that {request} names: "
            f"{', '.join(raw.class_names)}; correct the file or conf/task/{request.task.name}.yaml."
        )
    official_rows = request.task.official_rows.get(request.split)
    if official_rows not in (None, table.num_rows):
        log.warning("%s has %d rows; the official release has %d.", request, table.num_rows, official_rows)
    columns = {column: _text(table[column], column, request) for column in task.columns}
    if task.label_column in names:
        label = _plain(table[task.label_column])
        if labelled or label.null_count < len(label):
            columns["label"] = _checked_labels(label, raw, task, request, labelled)
    return pa.table(columns | {name: _plain(table[name]) for name in ("idx", *task.groups) if name in names})


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column with its values in place of a dictionary, which pandas writes for categories."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is(column: pa.ChunkedArray, *kinds: object) -> bool:
    return any(kind(column.type) for kind in kinds)  # type: ignore[operator]


def _text(column: pa.ChunkedArray, name: str, request: Request) -> pa.ChunkedArray:
    column = _plain(column)
    if _is(column, pa.types.is_struct) and request.language:
        column = _in_language(column, request.language, f"'{name}' of {request}")
    if column.null_count:
        raise DataError(
            f"task.columns: '{name}' of {request} is empty in {column.null_count} rows; repair the file."
        )
    if not _is(column, *TEXT, *BYTES):
        raise DataError(f"task.columns: '{name}' of {request} is {column.type}, not text.")
    try:
        return column if column.type == pa.string() else column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"task.columns: '{name}' of {request} is {column.type} and holds bytes that are no UTF-8 text: write "
            "the file again as UTF-8."
        ) from error


def _in_language(column: pa.ChunkedArray, language: str, shown: str) -> pa.ChunkedArray:
    """Return the texts (rows,) in one language from a nested column of XNLI's `all_languages`.

    A premise is {ar: text, bg: text, ...}; a hypothesis is {language: [ar, bg, ...], translation: [text, text, ...]}.
    """
    import pyarrow.compute as pc

    fields = [field.name for field in column.type]
    if language in fields:
        return pc.struct_field(column, language)
    if {*fields} == {"language", "translation"}:
        spoken, texts = (pc.struct_field(column, name) for name in ("language", "translation"))
        here = pc.equal(pc.list_flatten(spoken), language)
        rows = pc.list_parent_indices(spoken).filter(here)
        if pc.list_value_length(spoken).equals(pc.list_value_length(texts)) and np.array_equal(
            numbers(rows), np.arange(len(column))
        ):
            return pc.list_flatten(texts).filter(here)
    raise DataError(
        f"task.columns: {shown} does not hold one text in '{language}' for each row; it has {column.type}."
    )


def _checked_labels(
    column: pa.ChunkedArray, raw: Raw, task: TaskConfig, request: Request, labelled: bool
) -> pa.ChunkedArray:
    """Return the labels (rows,), translated by class name where the file names its classes.

    Raises DataError for labels that are missing, hidden or out of range.
    """
    # Refuse labels that are missing or hidden.
    label = _numeric(column, task, request)
    missing = label.null_count
    values = numbers(label.drop_null() if missing else label)
    missing += int(np.isnan(values).sum())
    if missing:
        raise DataError(
            f"task.label_column: {missing} labels of {request} are empty or NaN; repair the file."
        )
    hidden = int((values == -1).sum())
    if hidden == len(label) and not labelled:
        return label
    if hidden:
        raise DataError(
            f"{request} hides {hidden} of its {len(label)} labels (-1): it can be predicted, not trained on or scored; "
            f"select a split with labels in task.splits.{request.role} or task.evaluate."
        )

    # Refuse labels out of range.
    key, (low, high) = "label_range", task.label_range or (float("-inf"), float("inf"))
    if task.labels:
        key, low, high = "labels", 0, len(task.labels) - 1
    least, most = values.min().item(), values.max().item()
    if least < low or most > high:
        raise DataError(
            f"task.{key} allows {low} to {high}, and {request} has labels from {least} to {most}."
        )

    # Translate codes of a file that has the same classes in another order.
    if task.labels and raw.class_names and raw.class_names != task.labels and not _is(column, *TEXT, *BYTES):
        ours = np.array([task.labels.index(name) for name in raw.class_names])
        return pa.chunked_array([pa.array(ours[values], pa.int64())])
    return label


def _numeric(column: pa.ChunkedArray, task: TaskConfig, request: Request) -> pa.ChunkedArray:
    """Return class codes (int64), or the numbers of a regression (float32); null for a missing label."""
    kind = pa.int64() if task.labels else pa.float32()
    if column.type == kind:
        return column
    import pyarrow.compute as pc

    shown = f"task.label_column: '{task.label_column}' of {request}"
    if _is(column, pa.types.is_boolean):
        raise DataError(
            f"{shown} is bool, which does not say what is true: write {_needed(task)} in its place."
        )
    if _is(column, pa.types.is_floating):
        # pandas writes an empty cell among whole numbers as NaN.
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        if not _is(column, *TEXT, *BYTES):
            return column.cast(kind)
        words = column.cast(pa.string())
        codes = pc.index_in(words, value_set=pa.array(task.labels or [], pa.string())).cast(kind)
        return pc.coalesce(codes, pc.if_else(pc.is_valid(codes), None, words).cast(kind))
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{shown} is {column.type}, and a row is not {_needed(task)} ({reason}).") from error


def _needed(task: TaskConfig) -> str:
    return f"one of {', '.join(task.labels)} or a class code" if task.labels else "a number"
