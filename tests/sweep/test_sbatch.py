"""Options that a site adds to a job: what is one, what the launcher sets itself, and what would be another line of the script."""

import pytest
from omegaconf import OmegaConf

from bench.errors import ConfigError
from bench.settings.compose import compose_config
from bench.settings.launchers import SlurmConfig
from bench.sweep.launchers.slurm.sbatch import check, parameters
from bench.sweep.plan import make


def checked(*overrides):
    """Return the launcher of these overrides, checked as a plan checks it."""
    launcher = compose_config(["launcher=slurm", *overrides]).launcher
    check(launcher)
    return launcher


def test_a_plan_checks_its_launcher(tmp_path):
    with pytest.raises(ConfigError, match="launcher\\.options\\.p"):
        make(["sweep=smoke", "launcher=slurm", f"results_dir={tmp_path}", "+launcher.options.p=long"])


@pytest.mark.parametrize(
    "option",
    [
        "qos=long",
        "constraint=a100",
        "reservation=course",
        "exclude='n1,n[3-5]'",
        "nodelist=n1",
        "exclusive=true",
        "nice=100",
        "gres=lscratch:20",
        "licenses=matlab@server:1",
    ],
)
def test_a_sites_option_goes_to_sbatch(option):
    launcher = checked(f"+launcher.options.{option}")
    name, _, value = option.partition("=")
    assert str(parameters(launcher)["additional_parameters"][name]).lower() == value.strip("'")


@pytest.mark.parametrize(
    ("key", "null", "option"),
    [
        ("partition", "partition=gpu", "partition=long"),
        ("account", "account=me", "account=you"),
        ("partition", "partition=gpu", "parti=long"),  # sbatch completes names
        ("cpus", "cpus=8", "cpus-per-task=2"),
        ("cpus", "cpus=8", "cpus-per-gpu=2"),
        ("memory_gb", "memory_gb=48", "mem=0"),
        ("memory_gb", "memory_gb=48", "mem-per-cpu=4G"),
        ("gpus", "gpus=1", "gpus-per-node=a100:1"),
        ("gpus", "gpus=1", "gpus=a100:1"),
        ("gpus", "gpus=1", "gres=gpu:a100:1"),
        ("gpus", "gpus=1", "gres='lscratch:20,gpu:a100:1'"),
    ],
)
def test_an_option_beside_the_key_that_stands_for_it_is_refused_and_in_its_place_it_is_not(key, null, option):
    with pytest.raises(
        ConfigError, match=rf"launcher\.options\.[a-z-]+ \(.+\) and launcher\.{key} \(.+\) ask"
    ):
        checked(f"launcher.{null}", f"+launcher.options.{option}")
    launcher = checked(f"launcher.{key}=null", f"+launcher.options.{option}")
    assert option.partition("=")[0] in parameters(launcher)["additional_parameters"]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("time=10", "launcher.minutes"),
        ("requeue=true", "launcher.requeues"),
        *(
            (f"{name}=1", f"--{name}, which the launcher sets itself")
            for name in ("array", "ntasks", "signal")
        ),
        *(
            (f"{name}=x", f"--{name}, which the launcher sets itself")
            for name in ("output", "job-name", "chdir")
        ),
        ("outp=x", "--output"),
        ("p=long", "long name"),
        ("Qos=long", "long name"),
        ("two_words=1", "long name"),
        ("exclusive=false", "true for an option without a value"),
        ("exclusive=null", "true for an option without a value"),
        ("exclude=[n1,n2]", "in quotes"),
        ("qos=''", "printable"),
    ],
)
def test_what_is_no_option_or_the_launchers_own_is_refused_in_a_sentence(option, told):
    with pytest.raises(ConfigError) as refused:
        checked(f"+launcher.options.{option}")
    assert told in str(refused.value) and str(refused.value).count("launcher.options.")


@pytest.mark.parametrize(
    "launcher",
    [
        {"options": {"qos\ntouch /tmp/x": "long"}},
        {"options": {"qos=long --uid": "root"}},
        {"options": {"--qos": "long"}},
        {"options": {"qos long": True}},
        {"options": {"": "long"}},
        {"options": {"comment": "a\ntouch /tmp/x"}},
        {"options": {"comment": "a\rb"}},
        {"partition": "gpu\ntouch /tmp/x"},
        {"account": "me\u2028touch /tmp/x"},
    ],
)
def test_no_name_and_no_value_adds_a_line_to_the_jobs_script(launcher):
    with pytest.raises(ConfigError) as refused:
        check(OmegaConf.to_object(OmegaConf.structured(SlurmConfig(name="slurm", **launcher))))
    assert "\n" not in str(refused.value)
