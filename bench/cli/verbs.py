"""The grammar of the command line, `python -m bench <verb> [--flag value ...] [key=value ...]`: each verb with its flags.

Nothing here imports what a verb does. Help and wrong flags are answered at once, and a verb imports only what it needs.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from bench.errors import ConfigError, unknown


class Flag(NamedTuple):
    """The names of a flag, what `add_argument` takes for it, and whether the verb needs it."""

    names: tuple[str, ...]
    options: dict[str, Any]
    needed: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb, its help and its flags. A function of its name takes the free words, and the flags as keywords."""

    module: str  # of bench/cli, imported at the call
    does: str
    example: str
    flags: tuple[Flag, ...] = ()
    words: str = "[key=value ...]"  # the free words, as the usage shows them


def _flag(*names: str, needed: bool = False, **options: Any) -> Flag:
    return Flag(names, options, needed)


def _switch(*names: str, **options: Any) -> Flag:
    return Flag(names, {"action": "store_true", **options})


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"({text}) must be a whole number, 1 or greater")
    return int(text)


def _condition(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"({text}) must be key=value, such as task=mrpc")
    return text


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


TUNED = (_flag("--to", type=Path, metavar="DIR", help="the folder to write instead of conf/tuned"),)
LIMIT = _flag(
    "--limit", type=_count, metavar="N", help="only the first N runs, in the order of the sweep's file"
)
ONLY = _flag(
    "--only",
    action="append",
    default=[],
    type=_condition,
    metavar="KEY=VALUE[,VALUE]",
    help="only runs whose configuration has one of these values (part=NAME: that part of the file); repeat the flag for more",
)
SEEDS = _flag(
    "--seeds", type=_count, metavar="N", help="the seeds 0 to N-1 instead of those in the sweep's file"
)
SELECTION = (LIMIT, ONLY, SEEDS)
WAIT = _switch("--wait", help="on Slurm: return when the last job has ended, not when the jobs are submitted")
TEXTS = tuple(
    _flag(f"--{name}", needed=True, metavar="FILE", help=f"the {text}, one passage a line")
    for name, text in (("reference", "text that the embedding was made for"), ("current", "live text"))
)
HYDRA = (
    _switch("-m", "--multirun", help="run every combination of values that are separated by commas"),
    _flag(
        "-c", "--cfg", choices=["job", "hydra", "all"], help="print the configuration instead of running it"
    ),
    _switch("--resolve", help="with --cfg: resolve interpolations"),
    _flag("-p", "--package", help="with --cfg: print this part only"),
    _flag(
        "-i",
        "--info",
        nargs="?",
        const="all",
        metavar="TOPIC",
        help="print how Hydra composed the configuration",
    ),
    _flag("-cd", "--config-dir", metavar="DIR", help="search this folder for configurations, too"),
    _flag("-cn", "--config-name", metavar="NAME", help="start from this configuration instead of config"),
    _flag("-cp", "--config-path", metavar="DIR", help="the folder of configurations instead of conf"),
    _switch("--hydra-help", help="print the help of Hydra itself"),
)
EXPORT = (
    _flag("--to", type=Path, needed=True, metavar="DIR", help="the folder to write"),
    _switch(
        "--encoder",
        help="write the encoder that key=value describe, recovered, without a task, instead of a run",
    ),
    _switch("--materialise", help="write a plain checkpoint with a dense table, as any tool loads it"),
    _switch("--retrain", help="train again where the weights were not kept"),
    _switch("--onnx", help="add model.onnx"),
    _switch("--int8", help="add model.onnx and model-int8.onnx, its dynamically quantised form"),
    _switch(
        "--evaluate",
        help="a run, with --onnx or --int8: compute the headline metric with each ONNX file; an encoder: zero-shot STS-B "
        "and the translations that it finds among XNLI's premises, dense beside compressed",
    ),
    _flag("--opset", type=_count, default=argparse.SUPPRESS, metavar="N", help="the ONNX operator set"),
)

VERBS = {
    # One run, and many.
    "run": Verb(
        "run",
        "Run one configuration, unless its record is there already.",
        "task=lexical_sentiment embedding=subspace embedding.subspaces=8",
        HYDRA,
    ),
    "pretrain": Verb(
        "pretrain",
        "Pretrain the model of a configuration, or all models of a sweep, without a task; go on where it was cut off.",
        "model=bert-small-6x384 embedding=dense pretraining=masked_lm pretraining.corpus=texts",
        SELECTION,
    ),
    "plan": Verb(
        "plans",
        "Print how many runs a sweep has, how many are done and what is left.",
        "sweep=demo --only task=lexical_sentiment",
        SELECTION,
    ),
    "sweep": Verb(
        "sweeps", "Run what a sweep still misses, then report.", "sweep=demo --limit 3", (*SELECTION, WAIT)
    ),
    "status": Verb(
        "plans", "Print a sweep's runs by state, with the last line of each failure.", "sweep=demo", SELECTION
    ),
    "retry": Verb(
        "sweeps", "Run a sweep's failed and missing runs, then report.", "sweep=demo", (*SELECTION, WAIT)
    ),
    "cancel": Verb(
        "plans",
        "Stop a whole sweep, no part of it, wherever it runs; the same sweep goes on from there later.",
        "sweep=demo",
        (SEEDS,),
    ),
    "choose": Verb("plans", "Write the best trial of each kind of table of a sweep.", "sweep=tune", TUNED),
    "gc": Verb(
        "plans",
        "List what takes space and can be made again or belongs to no run; never records or pretrained models.",
        "--delete",
        (_switch("--delete", help="delete all that is listed and not marked as kept"),),
    ),
    "search": Verb(
        "sweeps",
        "Search the front of accuracy against stored bytes with Optuna, then report; several processes may search at once.",
        "search=demo",
    ),
    # What people read.
    "report": Verb(
        "reports",
        "Write tables, figures, INDEX.md and brief.html from the records.",
        "report.language=ja --against before/results",
        (_flag("--against", type=Path, metavar="DIR", help="compare with the results in this folder, too"),),
    ),
    "gate": Verb(
        "reports",
        "Check a configuration against declared limits; exit with 1 if one is broken.",
        "gate=default gate.embedding_bytes=1000000",
    ),
    "export": Verb(
        "exports",
        "Write a run's model, or an encoder without a task, to a folder that others can load.",
        "embedding=subspace assignment=pq --to exported --onnx",
        EXPORT,
        "[RUN_ID] [key=value ...]",
    ),
    "demo": Verb(
        "exports",
        "Print ten sentences as a dense and a compressed model judge them; train both first.",
        "model=all-minilm-l6-v2",
    ),
    "rescore": Verb(
        "scoring",
        "Compute all metrics again from the stored predictions, without training.",
        "results_dir=results data.root=glue",
    ),
    "pack": Verb(
        "scoring",
        "Pack the stored predictions into small files that git keeps, one for each model and task.",
        "results_dir=results data.root=glue",
    ),
    "submit": Verb(
        "scoring",
        "Write GLUE's submission zip from a sweep's predictions.",
        "sweep=glue_test --to glue.zip",
        (_flag("--to", type=Path, needed=True, metavar="FILE", help="the zip file to write"),),
    ),
    # Data and models.
    "tasks": Verb(
        "tasks",
        "List the splits of every task: rows that are there beside the official number.",
        "data.root=glue",
    ),
    "fetch": Verb(
        "fetch",
        "Download models and data once, for use without the hub.",
        "--models all-minilm-l6-v2,bert-base-uncased --tasks mrpc,rte",
        tuple(
            _flag(
                f"--{kind}", type=_names, default=[], metavar="NAME[,NAME]", help=f"names of conf/{kind[:-1]}"
            )
            for kind in ("models", "tasks")
        ),
        words="",
    ),
    # Measurements without a sweep.
    "fit": Verb(
        "probes",
        "Measure how well a sweep's embeddings fit the pretrained table, without training.",
        "sweep=budget",
    ),
    "coverage": Verb(
        "probes",
        "Measure how vocabulary and embedding cover a text.",
        "--corpus notes.txt embedding=subspace assignment=pq",
        (_flag("--corpus", needed=True, metavar="FILE", help="the text, one passage a line"),),
    ),
    "drift": Verb(
        "probes",
        "Compare live text with the text that an embedding was made for; exit with 1 past a limit.",
        "--reference made-for.txt --current live.txt all-minilm-l6-v2 drift.unseen=0.1",
        TEXTS,
        "[MODEL] [key=value ...]",
    ),
    "reassign": Verb(
        "probes",
        "Make an embedding's codes and tables for the live text, and compare them with the former ones.",
        "--reference made-for.txt --current live.txt all-minilm-l6-v2",
        TEXTS,
        "[MODEL] [key=value ...]",
    ),
    "latency": Verb(
        "probes",
        "Measure latency, memory and cold start of a sweep's embeddings beside dense.",
        "sweep=demo device=cpu",
        SELECTION,
    ),
    "perf": Verb(
        "speed",
        "Measure the Trainer and our engines by turns; go on where it was cut off.",
        "perf.backbones=[minilm] device=cuda",
    ),
    "chart": Verb("reports", "Draw the charts of what `perf` measured.", "results_dir=results"),
    "equivalence": Verb(
        "speed",
        "Train the same runs by several engines, or transformers.Trainer, on a GPU, and print their differences from the first.",
        "--sides compile,trainer --tasks mrpc data.root=glue",
        (
            _flag("--tasks", type=_names, default=[], help="default: mrpc,rte,stsb"),
            _flag(
                "--sides",
                type=_names,
                default=[],
                help="of eager, graph, compile and trainer, the first with each other; default: eager,graph,compile",
            ),
        ),
    ),
    "repeatability": Verb(
        "speed",
        "Carry a run out alone, again in a new process without caches and beside three others; compare to the last bit.",
        "task=mrpc data.root=glue training.max_steps=60",
    ),
}
RENAMED = {"cost": "latency", "sameness": "equivalence"}


class _Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError with one sentence where argparse would print the usage and exit."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument ([^:]+):", r"\1", message)
        raise ConfigError(f"{message} ({self.epilog}).")


def parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a verb's flags, which also writes its help."""
    verb = VERBS[name]
    usage = " ".join(["python -m bench", name, *["[flags]"] * bool(verb.flags), verb.words])
    example = f"example: python -m bench {name} {verb.example}"
    flags = _Parser(
        usage=usage,
        description=verb.does,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag in verb.flags:
        flags.add_argument(*flag.names, **flag.options)
    return flags


def parse(name: str, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the free words among a verb's arguments, and its flags by name.

    Raises ConfigError for a flag that the verb does not have, a value that a flag does not take, and a missing flag.
    """
    verb = VERBS[name]
    flags, words = parser(name).parse_known_args(list(arguments))
    known = [flag.names[-1] for flag in verb.flags]
    for word in words:
        key, given, value = word.partition("=")
        if given and f"--{key}" in known:
            raise ConfigError(f"{key} ({value}) is a flag: write --{word}.")
        if word.startswith("-") or not verb.words:
            raise ConfigError(unknown("flag", key if word.startswith("-") else f"--{key}", known))
    for flag in verb.flags:
        if flag.needed and getattr(flags, flag.names[-1].strip("-")) is None:
            example = f"`python -m bench {name} {verb.example}`"
            raise ConfigError(f"{flag.names[-1]} is not set: give {flag.options['help']}, as in {example}.")
    # Hydra parses the flags of `run` itself.
    return (list(arguments), {}) if verb.flags is HYDRA else (words, vars(flags))
