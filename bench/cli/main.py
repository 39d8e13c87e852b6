"""The command line: `python -m bench <verb> [--flag value ...] [key=value ...]`."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from bench.cli.verbs import RENAMED, VERBS, parse, parser
from bench.errors import BenchError, ConfigError, unknown
from bench.logs import set_up_logging
from bench.stopping import stoppable


def main(arguments: Sequence[str]) -> int:
    """Carry out a verb and return the exit status.

    0: done. 1: something failed. 2: wrong configuration. 3: broken environment. 130: interrupted. 141: the reader of the
    output has left, as in `bench plan | head`.
    """
    set_up_logging()
    _shield()
    try:
        with stoppable():
            status = _carry_out(arguments)
        sys.stdout.flush()
        return status
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Python flushes the output again when it exits, and that must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print(
            "interrupted: what is finished is kept, and the same command goes on or begins again",
            file=sys.stderr,
        )
        return 130


def _shield() -> None:
    """Shield this process and its children from settings that the user made for other programs."""
    # The backend of a notebook cannot be imported here, and figures are written to files only.
    os.environ["MPLBACKEND"] = "agg"
    # These change the numbers of a GPU, and no record would show it.
    for name in ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"):
        os.environ.pop(name, None)
    # A name that the terminal's encoding lacks is printed escaped instead of raising.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _carry_out(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m bench <verb> [--flag value ...] [key=value ...]\n")
        for name, verb in VERBS.items():
            print(f"  {name:14} {verb.does}")
        print("\npython -m bench <verb> --help shows a verb's flags and an example")
        return 0 if arguments else 2
    name, *rest = arguments
    if name in RENAMED:
        raise ConfigError(
            f"The verb '{name}' is called '{RENAMED[name]}' now: python -m bench {RENAMED[name]}."
        )
    if name not in VERBS:
        raise ConfigError(unknown("verb", name, VERBS))
    if {"-h", "--help"} & set(rest):
        print(parser(name).format_help(), end="")
        return 0
    words, flags = parse(name, rest)

    # Only `fetch` talks to the hub. Every other verb reads what `fetch` left, on any node.
    if name != "fetch":
        os.environ["HF_HUB_OFFLINE"] = "1"
    function = getattr(import_module(f"bench.cli.{VERBS[name].module}"), name)
    status: int = function(words, **flags)
    return status
