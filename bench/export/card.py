"""The model card of an export: front matter as the hub reads it, then sizes, scores with their intervals, and where they come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from bench import __version__
from bench.embeddings.rounding import FLOAT_BYTES
from bench.report.names import short_label
from bench.report.runs import headline_runs, to_frame
from bench.runs.identity import Prepared
from bench.settings.schema import ModelConfig
from bench.statistics import over_rows, summarise
from bench.store import Record
from bench.tasks.metrics import METRICS
from bench.text import escape, markdown_table

LICENCES = Path(__file__).resolve().parent / "licences"


def licence(model: ModelConfig) -> str:
    """Return the text of the model's licence, or one sentence where bench does not know it."""
    file = LICENCES / f"{Path(model.license or 'unknown').name}.txt"
    return (
        file.read_text()
        if file.is_file()
        else f"The licence of {model.name} is {model.license or 'not known (model.license is null)'}.\n"
    )


def write(prepared: Prepared, record: Record, records: Sequence[Record], facts: dict[str, Any]) -> str:
    """Return README.md for a run's export: `records` are all those of its store, `facts` what export.json says."""
    task, model = prepared.config.task, prepared.config.model
    place = record["name"].split("/")[:2]  # model and task: other tasks' records are no business of this card
    frame = headline_runs(
        to_frame([one for one in records if one["status"] == "ok" and one["name"].split("/")[:2] == place])
    )
    mine = frame[frame.run_id == record["run_id"]].iloc[0]
    alike = frame[
        (frame.model == mine.model) & (frame.weights == mine.weights) & (frame.column == mine.column)
    ]
    seeds = alike[alike.config_id == mine.config_id]
    dense = alike[
        (alike.kind == "dense") & (alike.base_id == mine.base_id) & (alike.recovery_id == mine.recovery_id)
    ]
    marks = [
        *mine.marks,
        *(["a single seed"] if len(seeds) == 1 else []),
        *(["random weights: no scores"] if mine.weights == "random" else []),
    ]
    label = short_label(record["config"], prepared.width)
    value = None if pd.isna(mine["headline.value"]) else float(mine["headline.value"])
    rows = [["this configuration", *_score(seeds)]] + (
        [["dense, same recipe", *_score(dense)]] if len(dense) else []
    )
    parts = [
        f"---\n{_front(prepared, record, label, value).to_yaml()}\n---\n",
        f"# {model.name}, {escape(label)}, fine-tuned on {task.name}\n",
        _form(facts) + _body(prepared.config.body),
        f"Marks: {escape('; '.join(marks))}.\n" if marks else "",
        f"## Scores\n\n{escape(record['headline']['split'])} {escape(record['headline']['metric'])}; over seeds the mean with Student's 95 % "  # type: ignore[index]
        "interval, of one seed Wilson's 95 % interval of a share.\n\n"
        + markdown_table(["model", "score", "95 % interval", "seeds", "runs"], rows),
        f"## Sizes\n\n{markdown_table(['what', 'bytes', 'of dense'], _sizes(record, facts), numeric=2)}",
        _onnx(facts.get("onnx")),
        f"## Origin\n\nRun `{record['run_id']}` ({escape(record['name'])}), bench {__version__}, commit {record['provenance'].get('commit')}; "
        f"base model {escape(_base(model))}; licence {escape(model.license or 'not known')}, see LICENSE. SHA256SUMS: the digest of every file.\n",
    ]
    return "\n".join(part for part in parts if part)


def _front(prepared: Prepared, record: Record, label: str, value: float | None) -> ModelCardData:
    task, model, headline = prepared.config.task, prepared.config.model, record["headline"]
    assert headline
    results = (
        []
        if value is None
        else [
            EvalResult(
                task_type="text-classification",
                dataset_type=task.hub or task.name,
                dataset_name=task.name,
                dataset_config=task.hub_config,
                dataset_split=headline["split"],
                metric_type=headline["metric"],
                metric_value=value,
            )
        ]
    )
    return ModelCardData(
        license=model.license or "unknown",
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=model.path if model.source == "hub" else None,
        tags=["compressed-embedding", prepared.config.embedding.name],
        model_name=f"{model.name} {label}",
        eval_results=results,
    )


def _form(facts: dict[str, Any]) -> str:
    if facts["form"] == "dense":
        return (
            "The compressed embedding written out as a dense table: as large as any checkpoint of this architecture, and loaded as one:\n\n"
            "```python\nAutoModelForSequenceClassification.from_pretrained(folder)\n```\n"
        )
    return (
        "Packed codes, tables and the rest; no dense table is built when it is loaded. Every file's digest is checked first.\n\n"
        "```python\nfrom bench import load_compressed\nmodel = load_compressed(folder)\n```\n"
    )


def _body(body: str) -> str:
    """Return what a body in fewer bits means for who loads the model."""
    if body == "fp32":
        return ""
    return f"\nThe weights outside the embedding are rounded to {body} and stored so in the compact form; arithmetic is in fp32.\n"


def _base(model: ModelConfig) -> str:
    """Return where the base model comes from; of a local one its name only, since a path says nothing elsewhere."""
    if model.source == "local":
        return f"{model.name} (a local folder)"
    return f"{model.path} at {model.revision or 'no pinned revision'} ({model.source}{', random weights' if model.weights == 'random' else ''})"


def _score(seeds: pd.DataFrame) -> list[str]:
    """Return score, interval, number of seeds and run ids as a table's cells."""
    found = summarise(seeds["headline.value"].dropna().astype(float).tolist())
    runs = " ".join(f"`{run}`" for run in seeds.run_id)
    if found.mean is None:
        return ["–", "–", str(len(seeds)), runs]
    rows, of = seeds.evaluated_rows.min(), ""
    metric = METRICS.get(seeds["headline.metric"].iloc[0])
    if found.n == 1 and metric and metric.of_rows and pd.notna(rows):
        found, of = over_rows([int(rows)], [found.mean]), f" ({rows:,.0f} rows)"
    interval = "–" if found.low is None else f"{found.low:.4f} to {found.high:.4f}{of}"
    return [f"{found.mean:.4f}", interval, str(found.n), runs]


def _sizes(record: Record, facts: dict[str, Any]) -> list[list[str]]:
    """Return the embedding by formula and every file as it lies in the folder, beside the dense model in fp32."""
    size = record["size"]
    assert size
    dense = FLOAT_BYTES * (size["total_params"] - size["embedding_params"]) + size["dense_embedding_bytes"]
    rows = [
        [
            "embedding as trained, by formula",
            f"{size['embedding_bytes']:,}",
            f"{size['embedding_bytes'] / size['dense_embedding_bytes']:.3%}",
        ]
    ]
    return rows + [
        [name, f"{number:,}", f"{number / dense:.1%}" if name.startswith("model") else ""]
        for name, number in facts["files"].items()
    ]


def _onnx(onnx: dict[str, Any] | None) -> str:
    if not onnx:
        return ""
    rows = [
        [
            name,
            f"{one['difference']:.2g}" if "difference" in one else "–",
            f"{one['headline']:.4f}" if "headline" in one else "–",
        ]
        for name, one in onnx["models"].items()
    ]
    return (
        f"## ONNX\n\nOperator set {onnx['opset']}; inputs {', '.join(onnx['inputs'])} (int64, batch by sequence, any size), output logits.\n\n"
        + markdown_table(
            ["file", "greatest difference of a logit from torch", "headline, computed with this file"],
            rows,
            numeric=2,
        )
    )
