"""Records as a pandas frame: one line a run, named for people, with what is not official written beside the task."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pandas as pd

from bench.errors import ConfigError
from bench.store import Record

GRID = ("subspaces", "rows", "sub_dim")  # what a grid of subspace embeddings varies
OFFICIAL_SPLIT = re.compile(r"(train|dev|validation|test)(_matched|_mismatched)?")


class Mark(NamedTuple):
    """What is not official about a task's data; as text it is English."""

    kind: str  # synthetic | train | evaluated
    split: str = ""
    rows: int | None = None  # that are used
    total: int | None = None  # that there are, officially or here

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total else ""
        count = "" if self.rows is None else f" ({self.rows:,}{of} rows)"
        return {
            "synthetic": "synthetic",
            "train": f"{self.split}{count}",
            "evaluated": f"evaluated on {self.split}{count}",
        }[self.kind]


def to_frame(records: list[Record]) -> pd.DataFrame:
    """Return one line a record, sorted by model, suite, task, configuration, seed.

    Columns: identity (model, weights, suite, task, unofficial, its text `marks`, column, config_id, configuration, kind, seed),
    outcome (status, value, metrics ...), size and provenance. `config_id` is a digest of the configuration without
    seed, task and data; `column` is the task with its marks, so a subset never shares one with the official task.
    `position` is the place in `records`. Scores of models with random weights are dropped. Raises ConfigError if one column mixes versions.
    """
    widths = {record["model"]["name"]: record["model"]["width"] for record in records if record["model"]}
    suites = {record["task"]["name"]: record["task"]["suite"] for record in records if record["task"]}
    frame = pd.DataFrame([_row(record, widths, suites) for record in records])
    frame["position"] = range(len(frame))
    _complete_marks(frame)
    frame["marks"] = [tuple(map(str, marks)) for marks in frame.unofficial]
    _label(frame)
    frame["column"] = [column_name(task, marks) for task, marks in zip(frame.task, frame.marks, strict=True)]
    _check_versions(frame)
    order = ["model", "weights", "suite", "column", "configuration", "seed", "created_at", "run_id"]
    return frame.sort_values(order, kind="stable", ignore_index=True)


def flaw(record: Record) -> str | None:
    """Return why a record that can be read is not as a run wrote it: cut, or changed by hand; None for a good one."""
    if _digest(record["config"]) != record["run_id"]:
        return "its configuration was changed by hand: the run_id belongs to another one"
    try:
        row = _row(record, {}, {})
        if record["status"] != "ok":
            return None
        headline, metrics, size = record["headline"], record["metrics"], record["size"]
        if headline is None or metrics is None or size is None or record["task"] is None:
            return "it is ok but has no headline, metrics, size or task"
        key = f"{headline['split']}.{headline['metric']}"
        told = metrics[headline["split"]][headline["metric"]]
        if told != headline["value"]:
            return f"headline.value ({headline['value']}) is not metrics.{key} ({told})"
        numbers = [*row["scores"].values(), *(value for value in size.values() if value is not None)]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            return "a metric or size is not a number"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return f"a part is missing or has another form ({type(error).__name__}: {error})"
    return None


def column_name(task: str, marks: tuple[str, ...]) -> str:
    """Return the task's name with what is not official about it."""
    return f"{task} [not official: {'; '.join(marks)}]" if marks else task


def headline_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the lines that count: finished, and of the same configuration, task and seed only the newest."""
    ok = frame[frame.status == "ok"]
    return ok.drop_duplicates(["model", "weights", "suite", "column", "config_id", "seed"], keep="last")


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the lines as tuples with the columns' names; pandas' types know neither names nor values."""
    yield from frame.itertuples(index=False)


def _row(record: Record, widths: dict[str, int], suites: dict[str, str]) -> dict[str, Any]:
    """Return the record flattened; a failed run's missing parts are None, or known from runs of its model or task."""
    config = record["config"]
    task: dict[str, Any] = config["task"] | dict(record["task"] or {})
    model: dict[str, Any] = config["model"] | dict(record["model"] or {})
    size: dict[str, Any] = dict(record["size"] or {})
    training: dict[str, Any] = dict(record["training"] or {})
    cost: dict[str, Any] = dict(record["cost"] or {})
    if (
        training.get("runs_at_once") or 1
    ) > 1:  # what was noted is the time on a shared card, and the memory of all
        cost |= {"latency_ms": None, "peak_memory_bytes": None}
    latency = cost.get("latency_ms") or {}
    fit: dict[str, Any] = dict(record["fit"] or {})
    limit = config["training"].get("max_train_examples")
    weights = model.get("weights") or "pretrained"
    headline: dict[str, Any] = dict(record["headline"] or {}) if weights != "random" else {}
    scores = record["metrics"] or {} if weights != "random" else {}
    error, provenance = record["error"] or {}, record["provenance"]
    group = _without(config, "seed", "task", "data")
    group["training"] = _without(config["training"], "max_train_examples")
    base = _without(group, "embedding", "assignment", "recovery", "body")
    base["training"] = _without(group["training"], "teacher", "teacher_weight")
    recovery, teacher = (
        (config.get("recovery") or {}).get("name", "none"),
        config["training"].get("teacher", "none"),
    )
    aid = [config.get("recovery"), teacher, config["training"].get("teacher_weight")]
    family = [base, aid, config.get("body")]
    return {
        "model": model["name"],
        "weights": weights,
        "suite": suites.get(task["name"]) or task.get("suite") or "other",
        "task": task["name"],
        "unofficial": _marks(record["task"]["source"], record["task"]["splits"], None)
        if record["task"]
        else None,
        "planned": _marks(
            config["data"]["source"],
            {role: {"split": name} for role, name in task_splits(config).items()},
            limit,
        ),
        "variant": _digest([task["name"], task_splits(config), limit]),
        "config_id": _digest(group),
        "base_id": _digest(base),
        "recipe_id": _digest(base | {"training": _without(base["training"], "learning_rate")}),
        "embedding_id": embedding_id(config),
        "recovery_id": _digest(aid),
        "recovery": recovery,
        "plain": recovery == teacher == "none",
        "method": config["embedding"]["name"],
        "body": config.get("body", "fp32"),
        **{key: config["embedding"].get(key) for key in ("subspaces", "rows")},
        "table_family": _digest([family, config.get("assignment"), _without(config["embedding"], *GRID)]),
        "assignment_family": _digest([family, config["embedding"]]) if config.get("assignment") else "",
        "recovery_curve": (record["recovery"] or {}).get("curve"),
        "decile_errors": fit.get("decile_errors"),
        "flat": _flatten(group),
        "configuration": short_label(config, widths.get(model["name"])),
        "kind": kind(config),
        "seed": config["seed"],
        "status": record["status"],
        "run_id": record["run_id"],
        "created_at": record["created_at"],
        "schema_version": record["schema_version"],
        "task_version": task.get("version"),
        "source": task.get("source"),
        "data_sha256": task.get("data_sha256"),
        "average": task.get("average", True),
        "chance": task.get("chance"),
        "metric": headline.get("metric"),
        "split": headline.get("split"),
        "higher_is_better": headline.get("higher_is_better", True),
        "value": headline.get("value"),
        "evaluated_rows": _evaluated_rows(record, headline.get("split")),
        "collapsed": training.get("collapsed"),
        **{
            key: size.get(key)
            for key in ("embedding_params", "embedding_bytes", "param_saving", "byte_saving")
        },
        **{key: size.get(key) for key in ("total_params", "total_bytes", "file_bytes")},
        **{key: training.get(key) for key in ("train_rows", "steps", "seconds")},
        "peak_memory_bytes": cost.get("peak_memory_bytes"),
        **{f"latency_{size}_ms": latency.get(size) for size in ("batch1", "batch32")},
        "profiles": cost.get("profiles"),
        "device": provenance.get("device"),
        "threads": provenance.get("threads") if str(provenance.get("device")).lower() == "cpu" else None,
        "commit": provenance.get("commit"),
        "dirty": bool(provenance.get("dirty")),
        "error_type": error.get("type"),
        "error_message": (error.get("message") or "").strip().partition("\n")[0] or None,
        "scores": {
            f"{split}.{name}": score for split, names in scores.items() for name, score in names.items()
        },
    }


def _without(part: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in keys}


def _evaluated_rows(record: Record, split: str | None) -> int | None:
    """Return the rows behind the headline; of a task in several languages those of one, which are the same sentences in each."""
    splits = record["task"]["splits"].values() if record["task"] else ()
    return next((part["rows"] for part in splits if part["split"] == split), None)


def embedding_id(config: dict[str, Any]) -> str:
    """Return a digest of what decides the compressed embedding before training: model, method, assignment."""
    return _digest([config["model"], config["embedding"], config.get("assignment")])


def embeddings_digest(configs: Iterable[dict[str, Any]]) -> str:
    """Return a digest of which embeddings were measured: a part of the name of a file that compares them."""
    return _digest(sorted(map(embedding_id, configs)))[:8]


def task_splits(config: dict[str, Any]) -> dict[str, str]:
    """Return role -> split of the canonical configuration."""
    return config["task"].get("splits") or {}


def _marks(source: str, splits: dict[str, dict[str, Any]], limit: int | None) -> tuple[Mark, ...]:
    """Return what is not official about the data: generated, other splits, other row counts, limited training rows."""
    marks = [Mark("synthetic")] if source == "generated" else []
    for role, part in sorted(splits.items(), key=lambda item: (item[0] != "train", item[0])):
        name, rows, official = part["split"], part.get("rows"), part.get("official_rows")
        most = part.get("max_train_examples") or (limit if role == "train" else None)
        used = rows if most is None else most if rows is None else min(rows, most)
        total = official or (rows if rows != used else None)
        limited = most is not None and (rows is None or rows >= most) and used != official
        unofficial = source != "generated" and not OFFICIAL_SPLIT.fullmatch(name)
        if limited or unofficial or (official is not None and used is not None and used != official):
            marks.append(Mark("train" if role == "train" else "evaluated", name, used, total))
    return tuple(marks)


def _complete_marks(frame: pd.DataFrame) -> None:
    """Give runs that failed before they read data the marks of runs with the same task settings, else planned ones."""
    known = {
        variant: marks
        for variant, marks in zip(frame.variant, frame.unofficial, strict=True)
        if marks is not None
    }
    frame["unofficial"] = [
        known.get(v, planned) for v, planned in zip(frame.variant, frame.planned, strict=True)
    ]


def kind(config: dict[str, Any]) -> str:
    """Return what a point's colour, marker and filling stand for: the method, of subspace embeddings the assignment, and a body of fewer bits."""
    return _named(config) + _body(config)


def _named(config: dict[str, Any]) -> str:
    embedding = config["embedding"]["name"]
    return (
        str((config.get("assignment") or config["embedding"])["name"])
        if embedding == "subspace"
        else str(embedding)
    )


def _body(config: dict[str, Any]) -> str:
    """Return ", int8 body", or nothing where it is in fp32."""
    return f", {config['body']} body" if "body" in config else ""


def short_label(config: dict[str, Any], width: int | None) -> str:
    """Return a name such as "pq f=8 Q=64 sum + distil, int8 body" that names only what differs from the defaults."""
    embedding = dict(config["embedding"])
    name, recovery = embedding["name"], (config.get("recovery") or {}).get("name", "none")
    words = [_named(config)]
    if name != "dense":
        f, rows, sub_dim = (embedding.pop(key, None) for key in ("subspaces", "rows", "sub_dim"))
        compose, init = embedding.pop("compose", "concat"), embedding.pop("init", "fitted")
        words += [f"{symbol}={value}" for symbol, value in (("f", f), ("Q", rows)) if value is not None]
        words += [compose] if compose != "concat" else []
        default = width if compose == "sum" else width // f if width and f else None
        words += [f"s={sub_dim}"] if width and sub_dim not in (None, default) else []
        words += [f"{init} init"] if init != "fitted" else []
        words += [
            _setting(key, value)
            for key, value in sorted(embedding.items())
            if key not in ("name", "version", "corpus")
        ]
    teacher = (config.get("training") or {}).get("teacher", "none")
    return " ".join(
        words + [f"+ {recovery}"] * (recovery != "none") + ["+ teacher"] * (teacher != "none")
    ) + _body(config)


def _setting(key: str, value: Any) -> str:
    """Return a setting in as few words as tell what it is."""
    short = {
        "rank": f"r={value}",
        "keep_dense": f"{value} rows kept",
        "code_rows": f"{value} code rows",
        "gain": "gains",
        "rotation": "rotated",
        "table_dtype": str(value),
        "bits": f"int{value}",
        "group": f"group {value}",
        "frequency_power": f"weighted {value:g}" if isinstance(value, float) else "",
    }
    return short.get(key, f"{key}={value}")


def _label(frame: pd.DataFrame) -> None:
    """Add to labels that several configurations of a model on a suite share the settings in which these differ."""
    for _, rows in frame.groupby(["model", "weights", "suite", "configuration"], sort=False):
        settings = dict(zip(rows.config_id, rows.flat, strict=True))
        if len(settings) == 1:
            continue
        keys = sorted({key for flat in settings.values() for key in flat})
        differing = [key for key in keys if len({repr(flat.get(key)) for flat in settings.values()}) > 1]
        last = Counter(key.rpartition(".")[2] for key in differing)
        short = {
            key: key if last[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in differing
        }
        for config_id, flat in settings.items():
            extra = ", ".join(f"{short[key]}={_value(flat.get(key))}" for key in differing)
            frame.loc[frame.index.isin(rows.index) & (frame.config_id == config_id), "configuration"] += (
                f" ({extra})"
            )


def _check_versions(frame: pd.DataFrame) -> None:
    """Raise ConfigError where one column's scores were made by different versions of the task, metric or record."""
    keys = {"task_version": "task version", "schema_version": "schema version", "metric": "headline metric"}
    for (model, _, _, column), rows in frame[frame.status == "ok"].groupby(
        ["model", "weights", "suite", "column"]
    ):
        for key, words in keys.items():
            found = rows.dropna(subset=[key]).drop_duplicates(key)
            if len(found) > 1:
                (one, id_one), (two, id_two) = found[[key, "run_id"]].head(2).itertuples(index=False)
                raise ConfigError(
                    f"{column} of {model} mixes {words} {one} (run {id_one}) and {two} (run {id_two}), which cannot be "
                    f"compared: move the records of one of them out of runs/, or run them again."
                )


def _flatten(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value."""
    flat: dict[str, Any] = {}
    for key, value in part.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def provenance(frame: pd.DataFrame) -> str:
    """Return what made a figure, for its foot: records with their digest, newest date, commits, devices.

    A record that has several lines, one for each of its languages, counts once.
    """
    frame = frame.drop_duplicates("position")
    commits = [str(commit)[:9] for commit in sorted(frame.commit.dropna().unique())]
    devices = sorted(frame.device.dropna().unique())
    shown = ", ".join(commits[:3]) + (f" and {len(commits) - 3} more" if len(commits) > 3 else "")
    return (
        f"{len(frame):,} records (SHA-256 {digest(frame)[:12]}), newest {max(frame.created_at)[:10]}; commit {shown or 'unknown'}; "
        f"device {', '.join(devices) or 'unknown'}"
    )


def digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 over the records' ids."""
    return hashlib.sha256("\n".join(sorted(frame.run_id)).encode()).hexdigest()


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _digest(part: object) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:12]
