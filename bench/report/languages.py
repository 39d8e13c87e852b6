"""What a smaller embedding costs each language, beside the text and the tokens that the language has."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.report.breakdown import of_languages
from bench.report.grid import Grid
from bench.report.names import language_name
from bench.report.scores import ALL, FLOORS, OF_A_LANGUAGE, SIZE, guessing
from bench.report.tables import difference_text
from bench.statistics import NOTHING, Summary, pareto_front, rank_correlation
from bench.text import minus

MOST_SHOWN = 4  # configurations of the figure: more dots a line cannot be told apart
SHARE = "share_of_text"
UNLIKE = 2.0  # times the smallest share of text that the largest must be for their order to mean anything
LANGUAGE_COLUMNS = [  # of the CSV file
    *("configuration", "body", SIZE, "language", "metric", "mean"),
    *("ci95_low", "ci95_high", "ci95_is", "seeds", "difference_to_dense"),
    *("difference_ci95_low", "difference_ci95_high", "difference_ci95_is", "paired_seeds"),
    *("hurt", SHARE, *OF_A_LANGUAGE),
]
HOW_TO_READ = (
    "A language's cell is its score's difference to dense in points ± half of the 95 % interval. Hurt is a language that loses more than "
    "twice what the mean over languages loses, plus 1 point. The share of text counts the recovery's passages whose language is known; "
    "tokens and different tokens are those of the evaluated texts, without special tokens: in the heading as the dense model reads them, "
    "in the correlation as the configuration does. A rank correlation is Spearman's, with a 95 % "
    "bootstrap interval over the languages: with the share of text, below 0 if languages with less text lose more. Where the largest "
    "share is less than twice the smallest there is none: the order of nearly equal shares is chance. Each language's score is in the "
    "CSV file."
)
VERDICTS = {
    "smaller": "languages with less text lose more",
    "larger": "languages with more text lose more",
    "unsure": "no proof that languages with less text lose more",
}


class Cost(NamedTuple):
    """What a configuration costs the languages of a task; losses in points against the dense model."""

    config_id: str
    configuration: str
    task: str  # the task's column of the score table
    mean_loss: float  # over the languages
    losses: dict[str, float]  # by language, the largest first
    hurt: list[str]  # lose more than twice the mean's loss plus 1 point; a mean that gains counts as no loss
    by_share: Summary  # rank correlation of the loss with the language's share of the recovery's text
    by_tokens: Summary  # the same with the tokens that a text needs on average


def costs(part: pd.DataFrame) -> list[Cost]:
    """Return what each configuration costs the languages, from dense to the smallest; nothing without two languages in points."""
    found, whole = [], part[part.column == ALL].set_index("config_id").difference_to_dense
    lines = language_table(part)

    # Each configuration, its languages ordered by their loss.
    for config_id, languages in lines.dropna(subset=["difference_to_dense"]).groupby("config_id", sort=False):
        ordered = languages.sort_values("difference_to_dense")
        hurt = list(ordered.language[ordered.hurt])
        losses = dict(zip(ordered.language, -ordered.difference_to_dense, strict=True))

        # Whether the loss grows with the text or the tokens, over the languages where these are known.
        correlations = [_correlation(languages, key) for key in (SHARE, OF_A_LANGUAGE[0])]
        first = languages.iloc[0]
        names = str(config_id), first.configuration, first.suite
        found.append(Cost(*names, -float(whole[config_id]), losses, hurt, *correlations))
    return found


def _correlation(languages: pd.DataFrame, key: str) -> Summary:
    """Return the rank correlation of the loss with the column; nothing where it is unknown, or the shares of text are alike."""
    known = languages.dropna(subset=[key])
    if known.empty or (key == SHARE and _alike(known[key])):
        return NOTHING
    return rank_correlation(known[key], -known.difference_to_dense)


def _alike(shares: "pd.Series[float]") -> bool:
    """Return whether the shares of text are too much alike for their order to mean anything."""
    return bool(shares.max() < UNLIKE * shares.min())


def language_table(part: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each configuration and language that has a score, with LANGUAGE_COLUMNS; none without two languages in points."""
    lines = of_languages(part)
    lines = lines[lines["mean"].notna() & (lines.scale == 100)].rename(columns={"column": "language"})
    if lines.language.nunique() < 2:
        return lines.iloc[:0]

    # Who is hurt, by what the mean loses, and how much text each has.
    whole = part[part.column == ALL].set_index("config_id").difference_to_dense
    limit = 1 + 2 * (-lines.config_id.map(whole)).clip(lower=0)
    shares = [_share(line) for line in lines.to_dict("records")]
    lines = lines.assign(hurt=-lines.difference_to_dense > limit, share_of_text=shares)
    return lines.astype({"distinct_tokens": "Int64"})


def _share(line: dict[Any, Any]) -> float:
    """Return the language's share of the recovery's passages of known language; NaN where none is known."""
    prefix = "recovery.languages."
    counts = {key: value for key, value in line.items() if key.startswith(prefix) and pd.notna(value)}
    return counts.get(prefix + line["language"], 0) / sum(counts.values()) if counts else np.nan


def grid(part: pd.DataFrame) -> Grid:
    """Return a line for each compressed configuration: each language's difference to dense, who is hurt, and correlations."""
    lines, found = language_table(part), costs(part)
    names = list(dict.fromkeys(lines.language))
    head = ["configuration", "mean of the languages", *(_heading(lines, name) for name in names)]
    head += [
        "hurt",
        "rank correlation of loss\nand share of text",
        "rank correlation of loss\nand tokens of a text",
    ]

    # A line for each configuration that can be compared.
    cells = {(line["config_id"], line["language"]): line for line in lines.to_dict("records")}
    whole = {line["config_id"]: line for line in part[part.column == ALL].to_dict("records")}
    body = []
    for cost in found:
        row = [cost.configuration, difference_text(whole[cost.config_id])]
        row += [
            difference_text(cells[key]) if (key := (cost.config_id, name)) in cells else "" for name in names
        ]
        body.append([*row, _listed(cost.hurt), *map(correlation_text, (cost.by_share, cost.by_tokens))])
    title = f"{part.title.iloc[0]} on {part.suite.iloc[0]}: what each language loses"
    return Grid(title, head, body, len(head) - 1, " ".join([HOW_TO_READ, *sentences(part)]))


def _heading(lines: pd.DataFrame, name: str) -> str:
    """Return a language's name, its share of text and its tokens, as far as they are known."""
    tokens, different = lines[lines.language == name][list(OF_A_LANGUAGE)].iloc[0]
    known = [] if pd.isna(tokens) else [f"{tokens:.1f} tokens a text", f"{different:,.0f} different"]
    return "\n".join([named(lines, name), *known])


def named(lines: pd.DataFrame, name: str) -> str:
    """Return a language's name, with its share of text where all configurations have the same, and languages do not."""
    shares = lines[lines.language == name][SHARE].dropna().unique()
    told = len(shares) == 1 and not _alike(lines[SHARE])
    share = f" ({100 * shares[0]:.3g} % of the text)" if told else ""
    return language_name(name) + share


def _listed(names: list[str]) -> str:
    return ", ".join(map(language_name, names)) or "none"


def correlation_text(found: Summary) -> str:
    """Return "−0.52 [−0.85, −0.03]"; nothing where the text or the tokens are not known, or alike for all languages."""
    if found.mean is None:
        return ""
    if found.low is None or found.high is None:
        return minus(found.mean, 2)
    return f"{minus(found.mean, 2)} [{minus(found.low, 2)}, {minus(found.high, 2)}]"


def sentences(part: pd.DataFrame) -> list[str]:
    """Return a sentence for each configuration of the figure: which languages are hurt, and whether smaller ones are hurt more."""
    return [_sentence(cost) for cost in costs(part[part.config_id.isin(shown(part))])]


def _sentence(cost: Cost) -> str:
    worst, loss = next(iter(cost.losses.items()))
    means = f"the mean of {len(cost.losses)} languages loses {minus(cost.mean_loss)} points, {language_name(worst)} {minus(loss)}"
    rank = f"; rank correlation of loss and share of text {correlation_text(cost.by_share)}"
    verdict = "" if cost.by_share.mean is None else f"{rank}: {VERDICTS[direction(cost.by_share)]}"
    return f"{cost.configuration}: {means}; hurt: {_listed(cost.hurt)}{verdict}."


def direction(by_share: Summary) -> str:
    """Return who is hurt more, smaller or larger languages, or "unsure" unless the interval leaves out 0."""
    if by_share.low is None or by_share.high is None or by_share.low <= 0 <= by_share.high:
        return "unsure"
    return "smaller" if by_share.high < 0 else "larger"


def shown(part: pd.DataFrame) -> list[str]:
    """Return the ids of at most MOST_SHOWN configurations of the front of mean score against bytes, the largest first.

    `choice` is among them: it takes the place of its neighbour.
    """
    whole = _compared(part)
    front = [str(whole.config_id.iloc[n]) for n in pareto_front(list(whole[SIZE]), list(whole["mean"]))[::-1]]
    chosen = np.linspace(0, len(front) - 1, min(MOST_SHOWN, len(front))).round().astype(int)
    if front and (taken := choice(part)) in front:
        chosen[np.abs(chosen - front.index(taken)).argmin()] = front.index(taken)
    return [front[place] for place in chosen]


def choice(part: pd.DataFrame) -> str:
    """Return the id of the configuration that a reader would take: the smallest whose mean loss is tolerated, else the best.

    Of several of one size it is the one that loses least.
    """
    whole = _compared(part).sort_values("difference_to_dense", kind="stable")
    tolerated = whole[-whole.difference_to_dense <= whole.margin]
    by_size = tolerated[::-1].sort_values(SIZE, kind="stable")
    return str((by_size if len(tolerated) else whole[::-1]).config_id.iloc[0])


def _compared(part: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of the mean over languages of compressed embeddings, without those that may be guessing, unless all may."""
    whole = part[(part.column == ALL) & (part.body == "fp32") & part.difference_to_dense.notna()]
    whole = whole[(whole.kind != "dense") & ~whole.kind.isin(FLOORS)]
    blind = guessing(whole)
    return whole if blind.all() else whole[~blind]
