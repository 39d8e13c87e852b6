"""The README stays true: its targets exist, its commands compose, its links lead somewhere."""

import re
import subprocess

from bench.runs.identity import prepare
from bench.settings.compose import choices, compose_config
from tests.support.commands import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].split()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


def test_every_make_target_that_is_shown_exists_and_help_lists_it():
    targets = {words[1] for words in COMMANDS if words[:1] == ["make"]} | set(
        re.findall(r"`make ([a-z]+)`", README)
    )
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"sweep", "test"} <= targets <= set(re.findall(r"^([a-z-]+)", listed, re.M))
    for words in COMMANDS:
        for name in (word.removeprefix("SWEEP=") for word in words if word.startswith("SWEEP=")):
            assert name in choices("sweep")


def test_the_run_that_is_shown_can_start():
    shown = [words for words in COMMANDS if words[:1] == [".venv/bin/python"]]
    assert shown
    for words in shown:
        assert words[1:4] == ["-m", "bench", "run"]
        assert prepare(compose_config(words[4:])).run_id


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
