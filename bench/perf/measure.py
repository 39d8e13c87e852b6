"""`bench perf`: measure all sides by turns, several times, write each number at once, and go on where a run was cut off."""

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.perf.contestants import EXAMPLES, ROWS, TRAINER_SIDES, measure_cell, measured
from bench.perf.engines import EngineSide, PredictionSide
from bench.perf.layers import layers
from bench.perf.selection import cells
from bench.perf.startup import startup
from bench.perf.table import markdown
from bench.perf.workload import matrix_rate
from bench.runs.provenance import ROOT, provenance
from bench.settings.schema import PerfConfig, RunConfig
from bench.store import device_key, digest, write_atomically

log = logging.getLogger("bench")
HOW = [*(side.how for side in TRAINER_SIDES.values()), EngineSide.how, PredictionSide.how]


def measure(config: RunConfig, device: torch.device) -> Path:
    """Measure what `config.perf` selects and return the JSON file; the table lies beside it.

    Both files are rewritten after every number. A measurement that was cut off goes on with the cells that are missing, if
    settings, code, commit, packages and device are the same; a cell that was cut off is measured again as a whole. A side that
    fails is recorded with its error, and the others go on.
    """
    perf = config.perf
    todo, facts = cells(perf, device.type == "cuda"), provenance(device)
    path = Path(config.results_dir) / "perf" / f"{slug(facts, perf)}.json"
    report = _resumed(path, facts, perf) or _empty(facts, perf, device)

    def write() -> None:
        write_atomically(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
        write_atomically(path.with_suffix(".md"), markdown(report))

    # What is measured once.
    began = time.perf_counter()
    if perf.startup and not report["startup"]:
        report["startup"] = startup(device)
        write()
    if perf.layers and not report["layers"]:
        backbones = list(dict.fromkeys(cell.backbone for cell in todo))
        report["layers"] = layers(backbones, device, perf.repeats)
        write()

    # The cells: rows of an earlier sitting are kept where their cell is whole.
    earlier, report["rows"] = report["rows"], []
    kept = [measured(cell, perf, earlier) for cell in todo]
    report["rows"] += [row for rows in kept for row in rows or ()]
    missing = [cell for cell, rows in zip(todo, kept, strict=True) if rows is None]
    for number, cell in enumerate(missing):
        measure_cell(cell, perf, device, report["rows"], write)
        log.info("perf | %d of %d cells after %.0f s", number + 1, len(missing), time.perf_counter() - began)

    report["complete"] = True
    write()
    return path


def _empty(facts: dict[str, Any], perf: PerfConfig, device: torch.device) -> dict[str, Any]:
    """Return a report without numbers."""
    rows = ROWS[device.type]
    return {
        "complete": False,
        "sittings": 1,
        "provenance": facts,
        "code": _code(),
        "settings": asdict(perf),
        "data": "synthetic rows, random weights: "
        f"to train on, {rows['training']:,} pairs as long as MRPC's, about {perf.examples or EXAMPLES[device.type]:,} in each "
        f"repeat; to distil on, {rows['distillation']:,} sentences as long as those of XNLI's test in 15 languages; "
        f"to evaluate, {rows['evaluation']:,} pairs as long as XNLI's test's",
        "sides": HOW,
        "matrix_flops_per_second": matrix_rate(device, 8192) if device.type == "cuda" else None,
        "startup": None,
        "layers": [],
        "rows": [],
    }


def _resumed(path: Path, facts: dict[str, Any], perf: PerfConfig) -> dict[str, Any] | None:
    """Return the report at `path`, with one sitting more, if this measurement can go on with it."""
    if not path.exists():
        return None
    report: dict[str, Any] = json.loads(path.read_text())
    of_a_sitting = ("command", "slurm_job_id")
    then, now = ({k: v for k, v in x.items() if k not in of_a_sitting} for x in (report["provenance"], facts))
    same = (then, report.get("code"), report["settings"]) == (now, _code(), asdict(perf))
    if report["complete"] or not same:
        return None
    log.info("perf | goes on with %s, which was cut off", path.name)
    return report | {"sittings": report["sittings"] + 1}


def _code() -> str:
    """Return a digest of the package's code: a commit does not tell of changes since, and git may not be there."""
    return digest({str(file.relative_to(ROOT)): file.read_text() for file in (ROOT / "bench").rglob("*.py")})


def slug(facts: dict[str, Any], perf: PerfConfig) -> str:
    """Return a file's name: the device's ("nvidia-h200", "cpu-2-threads"), and a digest of settings that are not the defaults.

    The digest keeps a partial measurement from overwriting the whole one.
    """
    name = f"cpu-{facts['threads']}-threads" if facts["device"] == "cpu" else facts["device"]
    return device_key(name) + ("" if perf == PerfConfig() else f"--{digest(asdict(perf))[:8]}")
