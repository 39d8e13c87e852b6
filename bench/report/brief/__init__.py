"""brief.html: one page from which a meeting can decide. Texts, template, style and script lie beside this file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from bench.errors import ConfigError, unknown
from bench.report.brief import costing
from bench.report.brief.answer import decided
from bench.report.brief.notes import notes
from bench.report.brief.tables import measured
from bench.report.brief.text import fill, model_text
from bench.report.decision import no_answer, subject
from bench.report.domain import Covered
from bench.report.section import Section
from bench.report.usage import Source
from bench.settings.schema import RunConfig

HERE = Path(__file__).parent
LANGUAGES = ("en", "ja")


def check(config: RunConfig) -> None:
    """Raise ConfigError for settings of the brief that cannot be."""
    if config.report.language not in LANGUAGES:
        raise ConfigError(unknown("report.language", config.report.language, LANGUAGES))
    costing.check(config.cost)


def page(
    frame: pd.DataFrame,
    parts: Sequence[Section],
    problems: Sequence[tuple[str, str]],
    covered: Sequence[Covered],
    config: RunConfig,
) -> str:
    """Return the HTML page in report.language. `problems` are unreadable records (path, reason).

    It holds no time and loads nothing, so equal records and settings give equal bytes. Raises ConfigError as `check` and `subject` do.
    """
    check(config)
    about = subject(parts, config.report)
    words: dict[str, Any] = yaml.safe_load(
        (HERE / f"{config.report.language}.yaml").read_text(encoding="utf-8")
    )
    values = {"model": about.section.model, "tasks": words["separator"].join(about.missing)}
    reason = no_answer(about)
    facts, source = measured(frame, about, about.dense, config.cost) if about.dense else ({}, Source(None))
    context = {
        "t": words,
        "about": about,
        "model": model_text(about.section, words),
        "config": config,
        "title": fill(words["title"], values),
        "times": words["compare"]["profiled" if source.dense else "about"],
        "notes": notes(about.section.runs(frame), parts, about, problems, covered, bool(source.dense), words),
    }
    context |= (
        {"reason": fill(words["blocked"][reason], values)}
        if reason
        else {"reason": None, **decided(facts, source, about, config, words)}
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False,
        "separators": (",", ":"),
    }  # what is not ASCII stays short
    return environment.get_template("brief.html").render(context) + "\n"
