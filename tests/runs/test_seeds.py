"""Seeds of codes and recovery: their own, or the run's where they are null."""

from dataclasses import asdict

import pytest

from bench.runs.execute import run
from bench.runs.identity import prepare, with_seed
from bench.settings.compose import compose_config

RANDOM = ["embedding=subspace", "assignment=random", "embedding.subspaces=4", "embedding.rows=32"]
RECOVERY = ["recovery=distil", "recovery.steps=2", "recovery.batch_size=4"]
NULL = ["assignment.seed=null", "recovery.seed=null"]


def test_seeds_that_are_null_follow_the_runs_seed_and_are_one_configuration(tiny: list[str]) -> None:
    chosen = [*tiny, *RANDOM, *RECOVERY, *NULL]
    first, second = (prepare(compose_config([*chosen, f"seed={seed}"])) for seed in (4, 5))
    assert first.canonical | {"seed": 5} == second.canonical
    for seed, run_ in ((4, first), (5, second)):
        assert (run_.config.assignment.seed, run_.config.recovery.seed) == (seed, seed)
    again = with_seed(first, 5)
    assert (again.run_id, asdict(again.config)) == (second.run_id, asdict(second.config))
    own = with_seed(prepare(compose_config([*tiny, *RANDOM, *RECOVERY, "assignment.seed=3"])), 5)
    assert (own.config.assignment.seed, own.config.recovery.seed) == (3, 0)


@pytest.mark.parametrize("method", [RANDOM, ["embedding=hashing", "embedding.rows=64"]], ids=lambda m: m[0])
def test_codes_and_recovered_model_are_those_of_the_same_seed_given_as_a_number(
    method: list[str], tiny: list[str], tmp_path
) -> None:
    def made(*seeds: str) -> tuple[str | None, str]:
        record = run(compose_config([*tiny, *method, *RECOVERY, "training.max_steps=1", *seeds]))
        assert record["status"] == "ok", record["error"]
        return record["fit"]["codes_sha256"], record["recovery"]["sha256"]

    null = made(*NULL, "seed=1")
    assert null == made("assignment.seed=1", "recovery.seed=1", "seed=1")
    fixed = made("seed=1")
    assert null[0] != fixed[0] and null[1] != fixed[1]
