"""The verb `run` as a Hydra program, so that --multirun, --cfg and the like work as everywhere."""

import gc
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bench.runs.execute import execute
from bench.runs.identity import prepare
from bench.settings.compose import CONF, compose_config, explain, in_hydras_grammar, typed
from bench.settings.schema import RunConfig
from bench.store import path_of, read


def run(arguments: Sequence[str]) -> int:
    """Run each configuration that the arguments describe; return 1 if one failed, else 0."""
    failures, given = [], sys.argv
    gc.freeze()  # what was imported: the garbage collector would look through it for every graph that is captured

    def one(config: RunConfig) -> None:
        prepared = prepare(config)
        results_dir = Path(prepared.config.results_dir)
        path = path_of(results_dir, prepared.name, prepared.run_id)
        if path.exists() and (record := read(path))["status"] == "ok":
            print(f"done before: {path} (delete it to run again)")
        else:
            record = execute(prepared)
            print(path)
        if headline := record["headline"]:
            print(f"{prepared.name}: {headline['split']} {headline['metric']} = {headline['value']:.4f}")
        if record["status"] != "ok":
            failures.append(path)

    def composed_by_hydra(composed: DictConfig) -> None:
        sys.argv = given  # Hydra has read its own by now, and the record tells the command as it was given
        one(typed(composed, HydraConfig.get().runtime.choices))

    overrides = [a for a in arguments if not a.startswith("-")]
    if len(overrides) == len(arguments) and not re.search(r"\bhydra[./:]", " ".join(overrides)):
        one(compose_config(overrides))  # as a program with options of its own Hydra composes everything twice
        return 1 if failures else 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and leaving
    multirun = (
        "--multirun" in arguments or "-m" in arguments
    )  # there a comma separates the values of a text key too
    sys.argv = [sys.argv[0], *(arguments if multirun else map(in_hydras_grammar, arguments))]
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base=None)(composed_by_hydra)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error
    return 1 if failures else 0
