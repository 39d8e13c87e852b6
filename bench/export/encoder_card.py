"""The model card of an encoder without a task: front matter as the hub reads it, loading, sizes, measures and the origin."""

from typing import Any

from huggingface_hub import ModelCardData

from bench.export import card
from bench.report.names import short_label
from bench.runs.identity import Prepared
from bench.text import markdown_table


def write(prepared: Prepared, length: int | None, facts: dict[str, Any]) -> str:
    """Return README.md for the export of an encoder; `facts` are the content of export.json, `length` the most tokens of a text."""
    model, onnx = prepared.config.model, facts.get("onnx")
    label = short_label(facts["config"], prepared.width)
    front = ModelCardData(
        license=model.license or "unknown",
        library_name="sentence-transformers" if facts["form"] == "dense" else "transformers",
        pipeline_tag="sentence-similarity",
        base_model=model.path if model.source == "hub" else None,
        tags=["compressed-embedding", prepared.config.embedding.name],
        model_name=f"{model.name} {label}",
    )
    return card.render(
        "encoder_card.md.j2",
        front=front.to_yaml(),
        label=label,
        model=model,
        base=card.base(model),
        body=prepared.config.body,
        facts=facts,
        length_given=f", max_length={length}" if length else "",
        sizes=card.sizes(**facts["size"], files=facts["files"]),
        measures=_measures(facts["measures"]) if "measures" in facts else "",
        onnx=onnx,
        onnx_files=card.onnx_files(onnx, "a number") if onnx else "",
    )


def _measures(measures: dict[str, dict[str, Any]]) -> str:
    """Return a line for STS-B and for each language, a column for each model; a task that was not measured has none."""
    head, (first, *_) = ["measure", *measures], measures.values()
    rows = []
    if "stsb" in first:
        pairs = f"STS-B validation ({first['stsb']['pairs']:,} pairs), Spearman"
        rows.append([pairs, *(f"{100 * part['stsb']['spearmanr']:.1f}" for part in measures.values())])
    if "xnli" in first:
        languages = first["xnli"]["languages"]
        mean = f"translations found (XNLI test, {first['xnli']['premises']:,} premises), mean of {len(languages)} languages"
        rows.append([mean, *(_both_ways(part["xnli"]) for part in measures.values())])
        for language in languages:
            rows.append(
                [language, *(_both_ways(part["xnli"]["languages"][language]) for part in measures.values())]
            )
    return markdown_table(head, rows, numeric=len(measures))


def _both_ways(share: dict[str, float]) -> str:
    return f"{100 * share['from_en']:.1f} / {100 * share['to_en']:.1f}"
