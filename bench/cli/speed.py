"""Verbs that compare training engines."""

import json
from collections.abc import Sequence
from pathlib import Path

from bench.perf.equivalence import ENGINES, TASKS, compare
from bench.perf.measure import measure
from bench.perf.repeatability import repeats
from bench.runs.loading import pick_device
from bench.settings.compose import compose_config
from bench.store import check_writable


def perf(overrides: Sequence[str]) -> int:
    """Measure the Trainer and our engines side by side; return 1 if a measurement failed."""
    config = compose_config(overrides)
    check_writable(Path(config.results_dir) / "perf")
    path = measure(config, pick_device(config.device))
    print(path.with_suffix(".md").read_text())
    report = json.loads(path.read_text())
    parts = (report["startup"], *report["layers"], *report["rows"])
    return 1 if any(part and part["error"] for part in parts) else 0


def equivalence(overrides: Sequence[str], tasks: Sequence[str], sides: Sequence[str]) -> int:
    """Compare the first side with every other one over paired seeds; return 1 if one differs."""
    comparisons = compare(overrides, tasks or TASKS, sides or ENGINES)
    for comparison in comparisons:
        first, other = comparison.sides
        mean, low, high = comparison.difference.mean, comparison.difference.low, comparison.difference.high
        interval = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"
        print(
            f"{comparison.task} {comparison.metric}: {first} {comparison.first}, {other} {comparison.other}; "
            f"mean difference {mean:+.4f}{interval}, standard deviation over seeds {comparison.spread:.4f}: "
            f"{'same' if comparison.same else 'DIFFERENT'}"
        )
    return 0 if all(comparison.same for comparison in comparisons) else 1


def repeatability(overrides: Sequence[str]) -> int:
    """Carry a run out three times in different company; return 1 if one differs from the first in a single bit."""
    same = True
    for repeat in repeats(overrides):
        print(f"{repeat.how}: {repeat.difference or 'the same to the last bit'}", flush=True)
        same &= not repeat.difference
    return 0 if same else 1
