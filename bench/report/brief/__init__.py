"""brief.html: a page from which a meeting can decide. Texts, template, style and scripts lie beside this file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from bench.errors import ConfigError, unknown
from bench.report import decision
from bench.report.brief import costing
from bench.report.brief.answer import decided
from bench.report.brief.notes import notes, spoken
from bench.report.brief.text import model_text
from bench.report.decision import no_answer, subject
from bench.report.names import LANGUAGES, known_as, suite_name
from bench.report.runs import section_of
from bench.settings.schema import RunConfig
from bench.store import Covered

HERE = Path(__file__).parent


def check(config: RunConfig) -> None:
    """Raise ConfigError for an unknown language and an impossible price list."""
    if config.report.language not in LANGUAGES:
        raise ConfigError(unknown("report.language", config.report.language, LANGUAGES))
    costing.check(config.price)


def page(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    problems: Sequence[tuple[str, str]],
    covered: Sequence[Covered],
    config: RunConfig,
    breakdowns: Sequence[pd.DataFrame] = (),
) -> str:
    """Return the HTML page in report.language. `table` is the runs' score table, `problems` are unreadable records (path, reason).

    `breakdowns` are the sections of `breakdown_table`, from which the page tells of languages.
    The page holds no time and loads nothing, so equal records and settings give equal bytes. Raises ConfigError as `check` and
    `subject` do.
    """
    check(config)
    about = subject(table, config.report, breakdowns)
    first, reason = about.part.iloc[0], no_answer(about)
    own = section_of(runs, about.part)
    text = (HERE / f"{config.report.language}.yaml").read_text(encoding="utf-8")
    words: dict[str, Any] = yaml.safe_load(text) | {"languages": LANGUAGES[config.report.language]}
    values = {"model": known_as(first.model), "tasks": words["separator"].join(about.missing)}
    context = {
        "t": words,
        "about": about,
        "model": model_text(first, words),
        "suite": suite_name(first.suite),
        "config": config,
        "title": words["title"].format(**values),
        "times": words["compare"]["about" if pd.isna(first.tokens) else "profiled"],
        "sweep": _sweep(own),
        "notes": notes(own, table, about, problems, covered, words),
        "reason": words["blocked"][reason].format(**values) if reason else None,
        **({} if reason else decided(about, config, words)),
    }
    if not reason:
        best = decision.rank(about.options, about.matter, config.report.tolerated_loss)[0]
        context["notes"]["risks"] += spoken(about.options[best.place]["row"], breakdowns, about, words)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Letters that are not ASCII stay short.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment.get_template("brief.html").render(context) + "\n"


def _sweep(runs: pd.DataFrame) -> str:
    """Return the name of the sweep that most runs came from, as their commands say."""
    commands = runs.get("provenance.command", pd.Series(dtype=str)).dropna().astype(str)
    names = commands.str.extract(r"\bsweep=(\w+)")[0].dropna()
    return str(names.mode().iloc[0]) if len(names) else "<sweep>"
