"""The fault test as a command: tiny runs under kills (-9), a second sweep on the same store, runs that fail by themselves.

python tests/faults.py [--runs 200] [--workers 4] [--every 4]: ends with status 0 if every run has exactly one record,
nothing is torn and only killed runs were begun twice.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAILING = 20  # every 20th run, or one, has a learning rate that makes training diverge: 5 %


def tiny_model(folder: Path) -> Path:
    """Return a folder with a BERT of random weights, 30,522 x 8, and MiniLM's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from bench.backbones import locate
    from bench.compose import compose_config

    AutoTokenizer.from_pretrained(locate(compose_config(["model=minilm"]).model)[0]).save_pretrained(folder)
    BertModel(
        BertConfig(
            vocab_size=30522, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    ).save_pretrained(folder)
    return folder


def sweeps(folder: Path, model: Path, runs: int) -> list[list[str]]:
    """Return the arguments of two sweeps whose runs together are `runs`: those that learn, and those that diverge."""
    common = [
        "sweep=smoke",
        "model.name=tiny",
        "model.source=local",
        f"model.path={model}",
        "model.sha256=null",
        "model.width=8",
        "model.revision=null",
        "training.max_steps=2",
        "training.warmup_fraction=0",
        "embedding=dense",
        "device=cpu",
        f"results_dir={folder}/results",
        f"cache_dir={folder}/cache",
    ]
    failing = max(1, runs // FAILING)
    return [
        [*common, "--seeds", str(runs - failing)],
        [
            *common,
            "training.learning_rate=1e30",
            "training.max_grad_norm=1e30",
            "training.max_steps=30",
            "--seeds",
            str(failing),
        ],
    ]


def start(arguments: list[str], workers: int) -> subprocess.Popen[str]:
    """Return a running sweep."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "sweep", *arguments, f"workers={workers}"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_one(results: Path, generator: random.Random, killed: list[str]) -> str | None:
    """Kill a process that works on a run, the same run twice at most; return the run's id, or None if there was none."""
    claims = sorted(results.rglob("*.claim[0-9]*"))
    generator.shuffle(claims)
    for claim in claims:
        run_id = claim.stem.rpartition("-")[2]
        if killed.count(run_id) == 2:  # the third death makes it a failure
            continue
        try:
            os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
            return run_id
        except (OSError, ValueError):  # it has just ended, or is just beginning
            continue
    return None


def faults(
    folder: Path, model: Path, runs: int, workers: int, every: float, seed: int = 0
) -> dict[str, object]:
    """Return what was counted when all sweeps have ended; raises AssertionError for anything lost, torn or done twice."""
    from bench import store

    generator, results = random.Random(seed), folder / "results"
    learning, failing = sweeps(folder, model, runs)
    begun = time.monotonic()
    processes = [start(learning, workers - workers // 2), start(learning, workers // 2), start(failing, 1)]
    killed: list[str] = []
    last, before = time.monotonic(), 0
    while any(process.poll() is None for process in processes):
        time.sleep(0.1)
        if time.monotonic() - last < every:
            continue
        ended = len(list(results.rglob("*.json")))
        if ended > before and (
            victim := kill_one(results, generator, killed)
        ):  # a slow machine must get on in between
            killed.append(victim)
            last, before = time.monotonic(), ended
    outputs = [process.communicate() for process in processes]
    records, problems = store.read_all(results)
    per_run = Counter(record["run_id"] for record in records)
    statuses = Counter(record["status"] for record in records)
    ended = [
        line.split(" | ")[-1]
        for _, err in outputs
        for line in err.splitlines()
        if "accuracy = " in line or "| diverged" in line
    ]
    counted = {
        "runs": runs,
        "kills": len(killed),
        "statuses": dict(statuses),
        "carried out": len(ended),
        "seconds": round(time.monotonic() - begun),
        "closing lines": [out.splitlines()[-1] for out, _ in outputs],
    }
    print(json.dumps(counted, indent=1))
    assert not problems, problems
    assert set(per_run.values()) == {1} and len(per_run) == runs, "every run has exactly one record"
    failed = max(1, runs // FAILING)
    assert statuses == {"ok": runs - failed, "diverged": failed}, "only those fail that fail by themselves"
    assert runs <= len(ended) <= runs + len(killed), "only a killed run is carried out twice"
    assert not list(results.rglob("*.claim*")) and not list((results / "runs").rglob("*.tmp")), (
        "nothing is left behind"
    )
    assert [process.returncode for process in processes] == [0, 0, 1], outputs[0][1][-2000:]
    return counted


def main() -> None:
    """Run the fault test in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between kills")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults(
            Path(folder),
            tiny_model(Path(folder) / "model"),
            arguments.runs,
            arguments.workers,
            arguments.every,
        )
    print("every run has exactly one record; nothing torn, nothing lost")


if __name__ == "__main__":
    main()
