"""The model card of an export: front matter as the hub reads it, then scores with their intervals, sizes and the origin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from bench.embeddings.rounding import FLOAT_BYTES
from bench.report.names import short_label
from bench.report.runs import headline_runs, to_frame
from bench.runs.identity import Prepared
from bench.settings.schema import ModelConfig
from bench.statistics import over_rows, summarise
from bench.store import Record
from bench.tasks.metrics import METRICS
from bench.text import escape, markdown_table

HERE = Path(__file__).resolve().parent


def licence(model: ModelConfig) -> str:
    """Return the text of the model's licence, or one sentence if the text is not known."""
    file = HERE / "licences" / f"{Path(model.license or 'unknown').name}.txt"
    if file.is_file():
        return file.read_text()
    return f"The licence of {model.name} is {model.license or 'not known (model.license is null)'}.\n"


def write(prepared: Prepared, record: Record, records: Sequence[Record], facts: dict[str, Any]) -> str:
    """Return README.md for the export of a run. `records` are all records of its store, `facts` the content of export.json."""
    run, seeds, scores = _compared(record, records)

    # Say what limits the scores.
    marks = list(run.marks)
    if seeds == 1:
        marks.append("a single seed")
    if run.weights != "pretrained":
        marks.append(f"{run.weights} weights{': no scores' if run.weights == 'random' else ''}")

    value = None if pd.isna(run["headline.value"]) else float(run["headline.value"])
    label, model, onnx = (
        short_label(record["config"], prepared.width),
        prepared.config.model,
        facts.get("onnx"),
    )
    size = record["size"]
    assert size
    return render(
        "card.md.j2",
        front=_front(prepared, record, label, value).to_yaml(),
        label=label,
        model=model,
        base=base(model),
        task=prepared.config.task,
        body=prepared.config.body,
        record=record,
        headline=record["headline"],
        facts=facts,
        marks=marks,
        scores=markdown_table(["model", "score", "95 % interval", "seeds", "runs"], scores),
        sizes=sizes(
            size["embedding_bytes"],
            size["dense_embedding_bytes"],
            size["total_params"] - size["embedding_params"],
            facts["files"],
        ),
        onnx=onnx,
        onnx_files=onnx_files(onnx, "a logit") if onnx else "",
    )


def _compared(record: Record, records: Sequence[Record]) -> tuple[pd.Series, int, list[list[str]]]:
    """Return the run's line, the number of its configuration's seeds, and lines of scores: this configuration's and dense's.

    Runs of the same model and task alone are compared: those of the same configuration, and the dense ones.
    """
    same = record["name"].split("/")[:2]
    alike = [other for other in records if other["status"] == "ok" and other["name"].split("/")[:2] == same]
    frame = headline_runs(to_frame(alike))
    run = frame[frame.run_id == record["run_id"]].iloc[0]
    frame = frame[(frame.model == run.model) & (frame.weights == run.weights) & (frame.column == run.column)]
    seeds = frame[frame.config_id == run.config_id]
    recipe = (frame.base_id == run.base_id) & (frame.recovery_id == run.recovery_id)
    dense = frame[(frame.kind == "dense") & recipe]
    scores = [["this configuration", *_score(seeds)]]
    if len(dense):
        scores.append(["dense, same recipe", *_score(dense)])
    return run, len(seeds), scores


def render(template: str, **values: Any) -> str:
    """Return a template of this folder with the values in place; the filter `md` escapes them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["md"] = escape
    return environment.get_template(template).render(**values)


def _front(prepared: Prepared, record: Record, label: str, value: float | None) -> ModelCardData:
    task, model, headline = prepared.config.task, prepared.config.model, record["headline"]
    assert headline
    result = EvalResult(
        task_type="text-classification",
        dataset_type=task.hub or task.name,
        dataset_name=task.name,
        dataset_config=task.hub_config,
        dataset_split=headline["split"],
        metric_type=headline["metric"],
        metric_value=value,
    )
    return ModelCardData(
        license=model.license or "unknown",
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=model.path if model.source == "hub" else None,
        tags=["compressed-embedding", prepared.config.embedding.name],
        model_name=f"{model.name} {label}",
        eval_results=[] if value is None else [result],
    )


def base(model: ModelConfig) -> str:
    """Return the origin of the base model; for a local model its name only, as a path means nothing elsewhere."""
    if model.source == "local":
        return f"{model.name} (a local folder)"
    weights = "" if model.weights == "pretrained" else f", {model.weights} weights"
    return f"{model.path} at {model.revision or 'no pinned revision'} ({model.source}{weights})"


def _score(seeds: pd.DataFrame) -> list[str]:
    """Return score, interval, number of seeds and run ids as a table's cells."""
    summary = summarise(seeds["headline.value"].dropna().astype(float).tolist())
    runs = " ".join(f"`{run}`" for run in seeds.run_id)
    if summary.mean is None:
        return ["–", "–", str(len(seeds)), runs]
    rows, of = seeds.evaluated_rows.min(), ""
    metric = METRICS.get(seeds["headline.metric"].iloc[0])
    if summary.n == 1 and metric and metric.of_rows and pd.notna(rows):
        summary, of = over_rows([int(rows)], [summary.mean]), f" ({rows:,.0f} rows)"
    interval = "–" if summary.low is None else f"{summary.low:.4f} to {summary.high:.4f}{of}"
    return [f"{summary.mean:.4f}", interval, str(summary.n), runs]


def sizes(embedding: int, dense_embedding: int, other_params: int, files: dict[str, int]) -> str:
    """Return a table of the embedding's bytes by formula and those of every file, beside the dense model in fp32.

    `embedding` and `dense_embedding` are bytes, `other_params` counts the parameters of all else.
    """
    dense = FLOAT_BYTES * other_params + dense_embedding
    rows = [
        [name, f"{number:,}", f"{number / dense:.1%}" if name.startswith("model") else ""]
        for name, number in files.items()
    ]
    first = ["embedding as trained, by formula", f"{embedding:,}", f"{embedding / dense_embedding:.3%}"]
    return markdown_table(["what", "bytes", "of dense"], [first, *rows], numeric=2)


def onnx_files(onnx: dict[str, Any], number: str) -> str:
    """Return a table of the ONNX files; `number` says what of the output is compared with torch's."""
    head = ["file", f"greatest difference of {number} from torch", "headline, computed with this file"]
    rows = [
        [
            name,
            f"{file['difference']:.2g}" if "difference" in file else "–",
            f"{file['headline']:.4f}" if "headline" in file else "–",
        ]
        for name, file in onnx["models"].items()
    ]
    shown = len(head) if any("headline" in file for file in onnx["models"].values()) else 2
    return markdown_table(head[:shown], [row[:shown] for row in rows], numeric=shown - 1)
