"""Launchers: a site's own values for one, and what each kind offers to a sweep."""

import shutil

import pytest

from bench.errors import ConfigError
from bench.settings import compose
from bench.settings.choices import CHOICES
from bench.settings.launchers import SlurmConfig
from bench.sweep import launchers


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """Return a copy of conf/ that configurations are composed from."""
    folder = tmp_path / "conf"
    shutil.copytree(compose.CONF, folder)
    monkeypatch.setattr(compose, "CONF", folder)
    caches = (compose._groups, compose._composed)
    for cached in caches:
        cached.cache_clear()
    yield folder
    for cached in caches:
        cached.cache_clear()


def test_a_sites_file_sets_its_own_values_of_a_launcher(conf):
    (conf / "launcher").mkdir(exist_ok=True)
    site = "defaults: [slurm]\npartition: gpu\naccount: nlp\nmemory_gb: null\noptions: {qos: long}\n"
    (conf / "launcher" / "ours.yaml").write_text(site)
    launcher = compose.compose_config(["launcher=ours", "launcher.tasks=3"]).launcher
    assert launcher == SlurmConfig(
        partition="gpu", account="nlp", memory_gb=None, options={"qos": "long"}, tasks=3
    )
    with pytest.raises(ConfigError, match=r"launcher\.tsks"):
        compose.compose_config(["launcher=ours", "launcher.tsks=3"])
    with pytest.raises(ConfigError, match="Did you mean 'ours'"):
        compose.compose_config(["launcher=our"])


def test_every_launcher_of_the_settings_can_carry_out_a_sweep():
    kinds = launchers.every()
    assert len(set(kinds)) == len(CHOICES["launcher"]) > 1
    assert all(issubclass(kind, launchers.Launcher) for kind in kinds)
