"""The command line: `python -m bench <verb> [key=value ...]`. What the verbs do stands in bench/verbs."""

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence

from bench.cli.measures import chart, cost, coverage, drift, fetch, fit, perf, reassign, sameness, tasks
from bench.cli.results import export, gate, report, rescore, submit
from bench.cli.sweeps import cancel, gc, plan, retry, run, search, status, sweep
from bench.errors import BenchError, ConfigError, unknown
from bench.logs import set_up_logging
from bench.stopping import stoppable

VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    verb.__name__: verb
    for verb in (
        run,
        plan,
        sweep,
        status,
        retry,
        cancel,
        gc,
        search,
        report,
        gate,
        export,
        rescore,
        submit,
        tasks,
        fetch,
        fit,
        coverage,
        drift,
        reassign,
        cost,
        perf,
        chart,
        sameness,
    )
}


def _keep_out() -> None:
    """Keep what the person has set for other programs out of this process and of those that it starts."""
    os.environ["MPLBACKEND"] = "agg"  # a notebook's does not import here; figures are written to files only
    for name in ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"):
        os.environ.pop(name, None)  # would change the numbers of a GPU without a trace in the record
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks stops nothing
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 done, 1 something failed, 2 wrong configuration, 3 broken environment, 130 interrupted,
    141 where the reader of its output has left, as in `bench plan | head`."""
    set_up_logging()
    _keep_out()
    try:
        with stoppable():
            status = _carry_out(arguments)
        sys.stdout.flush()
        return status
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Python flushes the output once more at its end, which must find something to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command goes on from here", file=sys.stderr)
        return 130


def _carry_out(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m bench <verb> [key=value ...]\n")
        for name, verb in VERBS.items():
            print(f"  {name:8} {(verb.__doc__ or '').splitlines()[0]}")
        return 0 if arguments else 2
    if arguments[0] not in VERBS:
        raise ConfigError(unknown("verb", arguments[0], VERBS))
    if arguments[0] != "fetch":  # it alone talks to the hub: the others read what it left, on any node
        os.environ["HF_HUB_OFFLINE"] = "1"
    return VERBS[arguments[0]](arguments[1:])
