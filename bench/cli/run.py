"""The verb `run` as a Hydra program, so that --multirun, --cfg and the like work as everywhere."""

import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.cli.cuda_context import create_meanwhile
from bench.settings.compose import CONF, compose_config, explain, in_hydras_grammar, typed
from bench.settings.schema import RunConfig
from bench.store import Record, move_unreadable, path_of, read

if TYPE_CHECKING:
    from bench.runs.identity import Prepared


def run(arguments: Sequence[str]) -> int:
    """Run each configuration that the arguments describe; return 1 if a run failed."""
    overrides = [argument for argument in arguments if not argument.startswith("-")]

    # Without flags compose the run here: as a program with flags Hydra composes everything twice.
    if len(overrides) == len(arguments) and not re.search(r"\bhydra[./:]", " ".join(overrides)):
        return 0 if _succeeds(compose_config(overrides)) else 1

    outcomes, command = list[bool](), sys.argv

    def task(composed: DictConfig) -> None:
        sys.argv = command  # Hydra has parsed its arguments, and the record holds the command as it was given
        outcomes.append(_succeeds(typed(composed, HydraConfig.get().runtime.choices)))

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting
    # With --multirun a comma separates values, also those of a text key.
    multirun = "--multirun" in arguments or "-m" in arguments
    sys.argv = [sys.argv[0], *(arguments if multirun else map(in_hydras_grammar, arguments))]
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base=None)(task)()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise explain(error, overrides) from error
    return 0 if all(outcomes) else 1


@cache  # as a program with --multirun does several runs
def _runs(gpu: bool) -> tuple[Callable[[RunConfig], "Prepared"], Callable[["Prepared"], Record]]:
    """Return `prepare` and `execute`; while Python imports them, which takes seconds, the GPU gets ready."""
    if gpu:
        create_meanwhile()
    from bench.runs.execute import execute
    from bench.runs.identity import prepare

    # Exempt the imports from garbage collection, which would scan them at every graph capture.
    gc.freeze()
    return prepare, execute


def _succeeds(config: RunConfig) -> bool:
    """Run a configuration unless its record is there, print its headline, and return whether it succeeded."""
    prepare, execute = _runs(config.device != "cpu")
    prepared = prepare(config)
    path = path_of(Path(prepared.config.results_dir), prepared.name, prepared.run_id)
    move_unreadable(path)
    if path.exists() and (record := read(path))["status"] == "ok":
        said = f"done before: {path} (delete it to run again)"
    else:
        record, said = execute(prepared), str(path)
    if os.environ.get("RANK", "0") != "0":  # torchrun: the first process tells it
        return record["status"] == "ok"
    print(said)
    if headline := record["headline"]:
        print(f"{prepared.name}: {headline['split']} {headline['metric']} = {headline['value']:.4f}")
    return record["status"] == "ok"
