"""The grammar of the command line: help, flags, free words, and what is called something else now."""

import inspect
import shlex
import subprocess
import sys
from importlib import import_module

import pytest

from bench.cli.main import main
from bench.cli.verbs import RENAMED, VERBS, parse
from bench.errors import ConfigError
from tests.support.commands import ROOT


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_shows_its_flags_and_an_example_that_its_function_takes(verb, capsys):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    usage, does = shown.split("\n\n")[:2]
    assert (
        usage.startswith(f"usage: python -m bench {verb}")
        and does.split()[0].isalpha()
        and does.endswith(".")
    )
    assert all(flag.names[-1] in shown for flag in VERBS[verb].flags)
    prompt, _, example = shown.splitlines()[-1].partition(f"python -m bench {verb} ")
    words, flags = parse(verb, shlex.split(example))
    function = getattr(import_module(f"bench.cli.{VERBS[verb].module}"), verb)
    inspect.signature(function).bind(words, **flags)
    assert prompt == "example: "


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = "import sys; from bench.cli.main import main; main(['--help']); main(['sweep', '--help'])"
    code += "; sys.exit(bool({'torch', 'pandas', 'hydra', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)


def test_flags_and_words_stand_in_any_order():
    words, flags = parse(
        "sweep", ["--only", "task=mrpc", "sweep=demo", "--wait", "--only=seed=0", "seed=1", "--limit=3"]
    )
    assert words == ["sweep=demo", "seed=1"]
    assert flags == {"limit": 3, "only": ["task=mrpc", "seed=0"], "seeds": None, "wait": True}


def test_flags_of_hydra_reach_it_as_they_were_typed():
    arguments = ["--multirun", "seed=0,1", "-c", "job"]
    assert parse("run", arguments) == (arguments, {})


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("sweep", ["--limt", "3"], "Unknown flag '--limt'. Did you mean '--limit'?"),
        ("search", ["--limit", "3"], "Unknown flag '--limit'. Available: none."),
        ("run", ["--multrun", "seed=0,1"], "Unknown flag '--multrun'. Did you mean '--multirun'?"),
        ("gc", ["--delete=yes"], "--delete"),
        ("plan", ["--seeds", "0"], "--seeds (0) must be a whole number, 1 or greater"),
        ("coverage", ["--corpus"], "--corpus expected one argument"),
        ("coverage", ["seed=1"], "--corpus is not set: give the text"),
        ("submit", ["sweep=glue_test", "to=glue.zip"], "to (glue.zip) is a flag: write --to=glue.zip."),
    ],
)
def test_a_wrong_flag_is_refused_with_what_to_write(verb, arguments, message):
    with pytest.raises(ConfigError) as error:
        parse(verb, arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_old_name_of_a_verb_is_refused_with_the_new_one(old, new, capsys):
    assert main([old, "sweep=demo"]) == 2
    assert f"The verb '{old}' is called '{new}' now" in capsys.readouterr().err


def test_an_unknown_verb_is_refused_and_no_verb_is_help(capsys):
    assert main(["swep"]) == 2 and "Did you mean 'sweep'?" in capsys.readouterr().err
    assert main([]) == 2 and "usage: python -m bench" in capsys.readouterr().out
