"""Records as a pandas frame, a line for each run: the record's dotted names as columns, and names and digests derived from it."""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.errors import ConfigError
from bench.report.names import HERE, column_name, embedding_id, kind, marks_of, plain_name, short_label
from bench.report.sizes import sizes
from bench.store import Record, digest, sha256
from bench.store.schema import CostPart, FitPart, HeadlinePart, SizePart, TaskPart, TrainingPart

SECTION = ["model", "weights", "suite"]  # a table or a figure shows one combination of these
GRID = ("subspaces", "rows", "sub_dim")  # settings that a grid of subspace embeddings varies
STEPS = "recovery.steps"  # the setting that labels name wherever it differs within a section
SEEDS = 1000  # a pretraining's seed counts as so many of the fine-tuning: 1002 is seed 2 of the model of pretraining seed 1
# Settings of the training that each method may have of its own, and is compared with the dense model's all the same.
TUNED = ("learning_rate", "table_factor", "epochs")
PARTS = {
    "task": TaskPart,
    "size": SizePart,
    "fit": FitPart,
    "headline": HeadlinePart,
    "training": TrainingPart,
    "cost": CostPart,
}
COLUMNS = [  # these exist even where no record has the key: all that a record can hold, and what is read here besides
    *(f"{part}.{key}" for part, form in PARTS.items() for key in form.__annotations__),
    *("size.memory_saving", "size.bits_per_entry"),
    *("config.embedding.subspaces", "config.embedding.rows", "recovery.curve", "error.type"),
    *("cost.latency_ms.batch1", "cost.latency_ms.batch32", "provenance.device", "provenance.commit"),
]


def to_frame(records: list[Record]) -> pd.DataFrame:
    """Return a line for each record, sorted by model, suite, task, configuration, seed.

    Derived columns:
    - model, weights, suite, task, kind;
    - marks: what is not official about the task;
    - column: the task with its marks. A subset never shares a column with the official task;
    - config_id: a digest of the configuration without seed, task and data; other columns hold digests of its parts;
    - configuration: its label;
    - position: the index in `records`;
    - replicates: None, until `with_replicates` fills them in.

    Scores of models with random weights are missing. So are times and memory of runs that shared a device. Raises ConfigError
    if a column mixes versions.
    """
    widths = {record["model"]["name"]: record["model"]["width"] for record in records if record["model"]}
    suites = {record["task"]["name"]: record["task"]["suite"] for record in records if record["task"]}
    frame = pd.json_normalize([_meaningful(record) for record in records])
    frame = frame.reindex(columns=[*frame.columns, *(key for key in COLUMNS if key not in frame.columns)])
    derived = [_derived(record, place, widths, suites) for place, record in enumerate(records)]
    frame = frame.join(pd.DataFrame(derived))

    # A run that failed before it read data has the marks of runs with the same task settings, else planned ones.
    known = {line["variant"]: line["unofficial"] for line in derived if line["unofficial"] is not None}
    frame["unofficial"] = [known.get(line["variant"], line["planned"]) for line in derived]
    frame["marks"] = [tuple(map(str, marks)) for marks in frame.unofficial]
    frame["column"] = [column_name(task, marks) for task, marks in zip(frame.task, frame.marks, strict=True)]
    _tell_apart(frame)
    _check_versions(frame)
    order = [*SECTION, "column", "configuration", "seed", "created_at", "run_id"]
    return frame.sort_values(order, kind="stable", ignore_index=True)


def headline_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs, the newest of each configuration, task and seed."""
    ok = frame[frame.status == "ok"]
    return ok.drop_duplicates([*SECTION, "column", "config_id", "seed"], keep="last")


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the lines as tuples with the columns' names. They are `Any`, since pandas' types know neither names nor values."""
    yield from frame.itertuples(index=False)


def section_of(frame: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """Return the frame's lines with the model and suite of `part`."""
    return frame[(frame[SECTION] == part.iloc[0][SECTION]).all(axis=1)]


def _meaningful(record: Record) -> dict[str, Any]:
    """Return the record without empty parts, scores of random weights, and times and memory taken beside other runs."""
    shown: dict[str, Any] = {key: part for key, part in record.items() if part is not None}
    shown["size"] = sizes(record)
    if _weights(record) == "random":
        shown = _without(shown, "headline", "metrics")
    if (shown.get("training", {}).get("runs_at_once") or 1) > 1:
        shown["cost"] = shown.get("cost", {}) | {"latency_ms": None, "peak_memory_bytes": None}
    return shown


def _weights(record: Record) -> str:
    if "pretraining" in record["config"]:
        return HERE
    return str((record["config"]["model"] | dict(record["model"] or {})).get("weights") or "pretrained")


def _derived(record: Record, place: int, widths: dict[str, int], suites: dict[str, str]) -> dict[str, Any]:
    """Return what the reports add to a record. A failed run takes suite and width from runs of its task and model."""
    parts: dict[str, Any] = {key: part or {} for key, part in record.items()}
    config, provenance = record["config"], record["provenance"]
    model, task, training = config["model"]["name"], config["task"]["name"], config["training"]
    recovery, teacher = (config.get("recovery") or {}).get("name", "none"), training.get("teacher", "none")
    limit = training.get("max_train_examples")
    planned = {role: {"split": name} for role, name in (config["task"].get("splits") or {}).items()}
    splits, split = parts["task"].get("splits", {}), parts["headline"].get("split")

    pretraining = config.get("pretraining")
    group = _without(config, "seed", "task", "data") | {"training": _without(training, "max_train_examples")}
    if pretraining:
        group["pretraining"] = _without(pretraining, "seed")
    return _digests(config, group) | {
        "position": place,
        "model": model,
        "weights": _weights(record),
        "suite": suites.get(task) or config["task"].get("suite") or "other",
        "task": task,
        "unofficial": marks_of(record["task"]["source"], splits, None) if record["task"] else None,
        "planned": marks_of(config["data"]["source"], planned, limit),
        "variant": digest([task, planned, limit]),
        "recovery": recovery,
        "plain": recovery == teacher == "none",
        "plain_name": plain_name(config),
        "body": config.get("body", "fp32"),
        "settings": {"training.version": 1, "training.table_factor": 1.0} | _flatten(group),
        "training_version": training.get("version", 1),
        "configuration": short_label(config, widths.get(model)),
        "kind": kind(config),
        "seed": config["seed"] + SEEDS * (pretraining["seed"] if pretraining else 0),
        "average": parts["task"].get("average", True),
        # Of a task in several languages the rows of the first: the sentences are the same in each.
        "evaluated_rows": next((part["rows"] for part in splits.values() if part["split"] == split), None),
        "profiles": parts["cost"].get("profiles"),
        "threads": provenance.get("threads") if str(provenance.get("device")).lower() == "cpu" else None,
        "replicates": None,
        "dirty": bool(provenance.get("dirty")),
        "error_message": (parts["error"].get("message") or "").strip().partition("\n")[0] or None,
    }


def _digests(config: dict[str, Any], group: dict[str, Any]) -> dict[str, str]:
    """Return digests of ever less of the configuration, to find configurations that differ in a single setting.

    `group` is the configuration without seed, task and data.
    """
    training = group["training"]
    # How text is drawn decides a dense model only if that is pretrained on it.
    drawn = None if "pretraining" in group else group.get("sampling")
    base = _without(group, "embedding", "assignment", "recovery", "body", *["sampling"] * bool(drawn))
    base["training"] = _without(training, "teacher", "teacher_weight")
    help_ = [config.get("recovery"), training.get("teacher", "none"), training.get("teacher_weight")]
    help_ += [drawn] if drawn and "corpus" in (config.get("recovery") or {}) else []
    family = [base, help_, config.get("body")]
    table = _without(config["embedding"], *GRID)
    return {
        "config_id": digest(group),
        "base_id": digest(base),
        "recipe_id": digest(base | {"training": _without(base["training"], *TUNED)}),
        "embedding_id": embedding_id(config),
        "recovery_id": digest(help_),
        "table_family": digest([family, config.get("assignment"), table]),
        "assignment_family": digest([family, config["embedding"]]) if config.get("assignment") else "",
    }


def _without(part: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in keys}


def _flatten(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value."""
    flat: dict[str, Any] = {}
    for key, value in part.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _tell_apart(frame: pd.DataFrame) -> None:
    """Add settings to labels: those in which a section's configurations of one label differ, and the steps of recoveries, if they do.

    A table recovered for longer than its neighbours would otherwise look better by its codes.
    """
    for _, section in frame.groupby(SECTION, sort=False):
        lengths = {flat[STEPS] for flat in section.settings if STEPS in flat}
        always = {STEPS} if len(lengths) > 1 else set()
        for _, lines in section.groupby("configuration", sort=False):
            settings = dict(zip(lines.config_id, lines.settings, strict=True))
            keys = sorted({key for flat in settings.values() for key in flat})
            told = [
                key
                for key in keys
                if key in always or len({repr(flat.get(key)) for flat in settings.values()}) > 1
            ]
            if not told:
                continue
            named = _named(told, list(settings.values()))
            for config_id, flat in settings.items():
                values = {name: flat.get(same[0]) for name, same in named.items()}
                words = [f"{name}={_in_label(value)}" for name, value in values.items()]
                own = lines.index[lines.config_id == config_id]
                frame.loc[own, "configuration"] += f" ({', '.join(words)})"


def _named(keys: list[str], settings: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return name -> keys: a key's last part, for several keys of this part too where each of the settings has one value for all."""
    parts: dict[str, list[str]] = {}
    for key in keys:
        parts.setdefault(key.rpartition(".")[2], []).append(key)
    named: dict[str, list[str]] = {}
    for part, same in parts.items():
        together = all(len({repr(flat.get(key)) for key in same}) == 1 for flat in settings)
        named |= {part: same} if together else {key: [key] for key in same}
    return named


def _in_label(value: Any) -> str:
    """Return a setting's value for a label: of a SHA-256, such as a text's, the first eight digits."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:8] if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)


def _check_versions(frame: pd.DataFrame) -> None:
    """Raise ConfigError where a column's scores come from different versions of the task, metric or record."""
    for (model, _, _, column), lines in frame[frame.status == "ok"].groupby([*SECTION, "column"]):
        for key in ("task.version", "schema_version", "headline.metric"):
            versions = lines.dropna(subset=[key]).drop_duplicates(key)
            if len(versions) > 1:
                (first, run), (second, other) = versions[[key, "run_id"]].head(2).itertuples(index=False)
                raise ConfigError(
                    f"{column} of {model} mixes {key} {first} (run {run}) and {key} {second} (run {other}), which cannot be compared: "
                    f"move the records of either out of runs/, or run them again."
                )


def provenance(frame: pd.DataFrame) -> str:
    """Return a figure's foot: records with their digest, newest date, commits, devices.

    A record that has a line for each of its languages counts once.
    """
    frame = frame.drop_duplicates("position")
    commits = [str(commit)[:9] for commit in sorted(frame["provenance.commit"].dropna().unique())]
    devices = sorted(frame["provenance.device"].dropna().unique())
    shown = ", ".join(commits[:3]) + (f" and {len(commits) - 3} more" if len(commits) > 3 else "")
    return (
        f"{len(frame):,} records (SHA-256 {ids_sha256(frame)[:12]}), newest {max(frame.created_at)[:10]}; "
        f"commit {shown or 'unknown'}; device {', '.join(devices) or 'unknown'}"
    )


def ids_sha256(frame: pd.DataFrame) -> str:
    """Return the SHA-256 over the records' ids."""
    return sha256("\n".join(sorted(frame.run_id)))
