"""The options of sbatch: those that the keys of `launcher` stand for, and those that a site adds (launcher.options)."""

import re
from typing import Any

from bench.errors import ConfigError
from bench.settings.launchers import SlurmConfig

# sbatch's options, each with the launcher's key that stands for it. Where the key is null, launcher.options may set them.
KEYS = {
    "partition": "partition",
    "account": "account",
    "cpus-per-task": "cpus",
    "cpus-per-gpu": "cpus",
    "mem": "memory_gb",
    "mem-per-cpu": "memory_gb",
    "mem-per-gpu": "memory_gb",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gpus-per-socket": "gpus",
    "gpus-per-task": "gpus",
    "time": "minutes",
    "requeue": "requeues",
    "no-requeue": "requeues",
}
# Options without which tasks would not find their work or their log, or would not be warned before their end.
OWN = (
    *("array", "chdir", "error", "input", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "parsable", "quiet", "signal", "tasks-per-node", "test-only", "wait", "wrap"),
)


def parameters(launcher: SlurmConfig) -> dict[str, Any]:
    """Return submitit's parameters for a task. A value of None leaves the option of sbatch out."""
    return {
        "time": launcher.minutes,
        "partition": launcher.partition,
        "account": launcher.account,
        "cpus_per_task": launcher.cpus,
        "mem": None if launcher.memory_gb is None else f"{round(launcher.memory_gb * 1024)}M",
        "gpus_per_node": launcher.gpus or None,
        "wckey": None,  # by default submitit sets one, which a cluster that knows wckeys refuses
        "additional_parameters": {"requeue": True, **launcher.options},
    }


def check(launcher: SlurmConfig) -> None:
    """Raise ConfigError for an entry of launcher.options that is no option, or that the launcher sets itself.

    submitit writes names as they are and keeps line breaks in values: either could add a line to the job's script.
    """
    for key in ("partition", "account"):
        _check_text(f"launcher.{key}", getattr(launcher, key))
    for name, value in launcher.options.items():
        key = f"launcher.options.{name}"
        if not re.fullmatch(r"[a-z]{2,}(-[a-z0-9]+)*", str(name)):
            raise ConfigError(
                f"{key!r} is no option of sbatch: write a long name without the dashes before it, such as gres."
            )
        if value is not True and (isinstance(value, bool) or not isinstance(value, str | int | float)):
            raise ConfigError(
                f"{key} ({value}) must be text, a number, or true for an option without a value; text with a "
                f"comma or a bracket stands in quotes: \"+{key}='a,b'\"."
            )
        _check_text(key, value)
        _check_free(launcher, name, value)


def _check_text(key: str, value: Any) -> None:
    if value is not None and (not str(value).isprintable() or not str(value).strip()):
        raise ConfigError(f"{key} ({value!r}) must be one line of printable text.")


def _check_free(launcher: SlurmConfig, name: str, value: Any) -> None:
    """Raise ConfigError if the launcher sets the option itself. A beginning counts as well: sbatch completes names."""
    key = f"launcher.options.{name}"
    if own := next((own for own in OWN if own.startswith(name)), None):
        raise ConfigError(
            f"{key} ({value}) would replace --{own}, which the launcher sets itself: remove it."
        )
    same = next((same for option, same in KEYS.items() if option.startswith(name)), None)
    if name.startswith(("gre", "tres")) and re.search(r"\bgpu\b", str(value)):
        same = "gpus"
    if same and (given := getattr(launcher, same)) is not None:
        other = "" if same in ("minutes", "requeues") else f", or set launcher.{same}=null as well"
        raise ConfigError(
            f"{key} ({value}) and launcher.{same} ({given}) ask for the same: remove {key}{other}."
        )
