"""The sentences beside the numbers: cautions, risks, missing measurements, and the records behind the page."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.report.brief.text import listed, mark_text, model_text, task_name
from bench.report.decision import POINTS, Subject
from bench.report.languages import correlation_text, costs, direction
from bench.report.names import overlaps
from bench.report.runs import SECTION, ids_sha256
from bench.store import Covered
from bench.tasks.specs import read_task, task_names
from bench.text import minus


def notes(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    about: Subject,
    problems: Sequence[tuple[str, str]],
    covered: Sequence[Covered],
    words: dict[str, Any],
) -> dict[str, Any]:
    """Return the page's lists of sentences (`care`, `risks`, `unknown`) and the `footer`.

    `runs` are those of the page's section: neither the footer nor the failures are about another section.
    """
    known = runs.dropna(subset=["provenance.commit"])
    versions = zip(known["provenance.commit"], known.dirty, strict=True)
    commits = sorted({commit[:12] + (words["dirty"] if dirty else "") for commit, dirty in versions})
    devices = sorted(runs["provenance.device"].dropna().unique())
    care = _care(about, words) + _sources(runs, words)
    return {
        "care": care,
        "risks": [*words["risks"]["lines"]] + [_covered(text, covered, words) for text in covered],
        "unknown": _unknown(runs, table, about, problems, words),
        "footer": words["footer"].format(
            count=f"{len(runs):,}",
            digest=ids_sha256(runs)[:16],
            commits=words["separator"].join(commits) or "?",
            devices=words["separator"].join(devices) or "?",
        ),
    }


def _covered(text: Covered, covered: Sequence[Covered], words: dict[str, Any]) -> str:
    """Return the sentence about a text's coverage. A digest tells texts apart whose files have the same name."""
    namesakes = sum(other.corpus == text.corpus for other in covered)
    shares = {"unknown": "unknown_rate", "badly": "badly_fitted_rate"}
    facts = {name: f"{100 * text.facts[key]:.1f}" for name, key in shares.items()}
    corpus = text.text if namesakes > 1 else text.corpus
    return str(words["risks"]["covered"].format(corpus=corpus, label=text.name, **facts))


def spoken(
    row: dict[Any, Any], breakdowns: Sequence[pd.DataFrame], about: Subject, words: dict[str, Any]
) -> list[str]:
    """Return a sentence for each task in several languages: what a configuration, given by its main line, costs them."""
    texts, join = words["risks"], words["separator"].join
    asked = [part for part in breakdowns if part.suite.iloc[0] in set(about.part.column)]
    sentences = []
    for cost in (cost for part in asked for cost in costs(part[part.config_id == row["config_id"]])):
        worst, loss = next(iter(cost.losses.items()))
        speak = words["languages"]
        facts = {"label": cost.configuration, "task": cost.task, "count": len(cost.losses)}
        facts["name"] = cost.task.partition(" [")[0]  # without the marks, which are English
        facts["worst"] = speak.get(worst, worst)
        numbers = {"mean": minus(cost.mean_loss), "loss": minus(loss)}
        hurt = join(speak.get(name, name) for name in cost.hurt) or words["nothing"]
        sentence = texts["languages"].format(**facts, **numbers, hurt=hurt)
        if cost.by_share.mean is not None:
            correlation = correlation_text(cost.by_share)
            sentence += texts["text_share"][direction(cost.by_share)].format(correlation=correlation)
        sentences.append(sentence)
    return sentences


def _care(about: Subject, words: dict[str, Any]) -> list[str]:
    """Return what keeps the numbers from being official or certain."""
    cares = words["cares"]
    items = [*about.options, *([about.dense] if about.dense else [])]
    columns = about.part[~about.part.is_mean].drop_duplicates("column").to_dict("records")
    marks = [(task_name(column, words), mark) for column in columns for mark in column["unofficial"]]
    places = list(enumerate(task_name(column, words) for column in about.columns))
    lists = {
        "synthetic": [task for task, mark in marks if mark.kind == "synthetic"],
        "single": [task for place, task in places if max((i["seeds"][place] for i in items), default=0) == 1],
        "besides": [task for place, task in places if place not in about.matter],
    }
    texts = {
        key: [cares[key].format(tasks=listed(tasks, words))] if tasks else [] for key, tasks in lists.items()
    }
    marked = [
        cares["marked"].format(task=task, mark=mark_text(mark, words))
        for task, mark in marks
        if mark.kind != "synthetic"
    ]
    collapsed = [
        cares["collapsed"].format(task=task, count=count, seeds=about.dense["seeds"][place])
        for place, task in places
        if about.dense and (count := about.dense["collapsed"][place])
    ]
    seen = overlaps(about.part.model.iloc[0])
    tasks = [column["task"] for column in columns]
    overlap = [cares["overlap"].format(task=task, data=seen[task]) for task in tasks if task in seen]
    weights = about.part.weights.iloc[0]
    bits = weights.removesuffix("-bit")
    rounded = [cares["rounded"].format(bits=bits)] if bits != weights else []
    found = sorted({str(item["row"]["training_version"]) for item in items})
    versions = [cares["versions"].format(versions=listed(found, words))] if len(found) > 1 else []
    certain = [*rounded, *versions, *texts["single"], *texts["besides"], *collapsed]
    return [*texts["synthetic"], *marked, *overlap, *certain]


def _sources(runs: pd.DataFrame, words: dict[str, Any]) -> list[str]:
    """Return a sentence for each task whose runs read different data, which a difference between them then holds, too."""
    text, ok = words["cares"]["sources"], runs[runs.status == "ok"]
    columns = [part for _, part in ok.groupby("column")]  # a subset is never compared with the whole
    counts = [(part.task.iloc[0], part["task.data_sha256"].nunique()) for part in columns]
    return [text.format(task=task, count=count) for task, count in counts if count > 1]


def _unknown(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    about: Subject,
    problems: Sequence[tuple[str, str]],
    words: dict[str, Any],
) -> list[str]:
    """Return what the page says nothing about: tasks without a score, unfinished and unreadable runs, other sections."""
    texts, join, first = words["unknown"], words["separator"].join, about.part.iloc[0]
    sentences = [*texts["lines"], *([texts["unprofiled"]] if pd.isna(first.tokens) else [])]

    # The suite's tasks, of those that conf/task declares and those with records.
    names = [task.name for task in map(read_task, task_names()) if task.suite == first.suite]
    names += [task for task in about.part[~about.part.is_mean].task.unique() if task not in names]
    scored = about.part[~about.part.is_mean & (about.part.scale == POINTS)]
    without = [name for name in names if name not in set(scored.task)]
    if without:
        sentences.append(texts["tasks"].format(suite=first.suite, tasks=join(without)))

    # Runs and records that are missing.
    failed = runs[runs.status != "ok"]
    if len(failed):
        run = failed.iloc[0]
        run_text = {"label": run.configuration, "task": run.task, "seed": run.seed}
        message = "" if pd.isna(run.error_message) else f" ({run.error_message})"
        outcome = {"count": len(failed), "status": words["statuses"][run.status], "message": message}
        sentences.append(texts["unfinished"].format(**run_text, **outcome))
    if problems:
        path, reason = problems[0]
        sentences.append(texts["unreadable"].format(count=len(problems), path=path, reason=reason))

    # Other sections.
    every = table.drop_duplicates(SECTION)
    others = every[(every[SECTION] != first[SECTION]).any(axis=1)].to_dict("records")
    shown = [f"{model_text(row, words)} ({row['suite']})" for row in others]
    return sentences + ([texts["others"].format(others=join(shown))] if shown else [])
