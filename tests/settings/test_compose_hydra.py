"""The fast composition held against Hydra's own, in results and in refusals; and the one exception, values of text keys."""

import hypothesis
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import strategies
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bench.errors import ConfigError
from bench.settings.choices import CHOICES
from bench.settings.compose import CONF, compose_config
from bench.settings.schema import RunConfig

REFUSED = (HydraException, OmegaConfBaseException, ValueError)


def by_hydra(overrides: list[str]) -> RunConfig:
    """Return the configuration as Hydra composes it; raises one of REFUSED where Hydra refuses."""
    with initialize_config_dir(str(CONF), version_base=None):
        composed = compose("config", overrides=overrides, return_hydra_config=True)
    chosen = {
        group: name
        for group, name in composed.hydra.runtime.choices.items()
        if (CONF / group).is_dir() or group in CHOICES
    }
    with open_dict(composed):
        del composed["hydra"]
    config = OmegaConf.to_object(composed)
    config.chosen = {group: name for group, name in chosen.items() if name}
    return config


@pytest.mark.parametrize(
    "overrides",
    [
        "",
        "seed=3",
        "seed=1 seed=2",
        "seed='3'",
        "seed=4 ++seed=3",
        "training.learning_rate=2e-5",
        "training.max_steps=null",
        "keep_weights=yes",
        "task=mrpc task=rte",
        "task=mrpc task.splits.train=validation task=rte",
        "embedding=subspace assignment=pq embedding.subspaces=8 embedding.rows=64",
        "sweep=demo",
        "training={batch_size:8}",
        "data={root:x}",
        "task.evaluate=[test]",
        "task.evaluate=[]",
        "task.evaluate=[1,2]",
        "task.evaluate.0=test",
        "task.labels=null",
        "perf.sides=[trainer,'graph']",
        'launcher=slurm launcher.setup=["module"]',
        "task.splits={train:a}",
        "task.splits={}",
        "task.splits.train=a ~task.splits.test",
        "+task.splits.extra=x",
        "++task.splits.extra=x",
        "+gate.loss.mrpc=1",
        "+gate.loss={mrpc:1}",
        "+gate.coverage.notes.known=0.5",
        "search.space={assignment:[pq]}",
        "~seed",
        "seed=${training.batch_size}",
        "cache_dir=other results_dir=${cache_dir}/x",
        "cache_dir=${results_dir}/c results_dir=r",
        "hydra.verbose=true",
        "model.revision=null",
        "model.revision='null'",
        "results_dir='a,b'",
        "results_dir=",
    ],
)
def test_both_compose_the_same(overrides):
    words = overrides.split()
    made = compose_config(words)
    assert repr(made) == repr(by_hydra(words))  # nan is not equal to itself, but reads the same
    assert repr(compose_config(words)) == repr(made), "a second time, from what the first left behind"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=0,1", "seed=0,1 names several values.*--multirun seed=0,1.*conf/sweep/.*seed=\\[0,1\\]"),
        ("task=mrpc,rte", "task=mrpc,rte names several values.*--multirun task=mrpc,rte"),
        ("task=choice(mrpc,rte)", "names several values.*--multirun"),
        ("seed=range(0,3)", "names several values.*--multirun"),
        ("seed=glob(*)", "names several values.*--multirun"),
        ("training.learning_rate=interval(0,1)", "names several values.*--multirun"),
        ("modle=minilm", "Unknown key 'modle'. Did you mean 'model'"),
        ("training.epoch=3", "Unknown key 'training.epoch'. Did you mean 'training.epochs'"),
        ("training.batch_size.x=3", "training.batch_size.x \\(3\\) has the wrong type"),
        ("model=all-minilm", "Unknown model 'all-minilm'. Did you mean 'all-minilm-l6-v2'"),
        ("model=minilm", "model=minilm is called model=all-minilm-l6-v2 now."),
        ("model=null", "Unknown model 'null'. Available"),
        ("model=", "Unknown model ''. Available"),
        ("training=5", "Unknown training '5'. Available: default"),
        ("model@other=all-minilm-l6-v2", "Unknown key 'model@other'"),
        ("task.splits.trian=x", "task.splits.trian is not there yet.*\\+task.splits.trian=x"),
        ("gate.loss.mrpc=1", "gate.loss.mrpc is not there yet.*\\+gate.loss.mrpc=1"),
        ("gate.loss={mrpc:1}", "gate.loss is not there yet.*\\+gate.loss={mrpc:1}"),
        ("gate.coverage.notes.known=1", "is not there yet.*\\+gate.coverage.notes.known=1"),
        ("sweep.name=x", "Unknown key 'sweep.name'"),
        ("task.splits=5", "task.splits \\(5\\) has the wrong type"),
        ("task.evaluate=test", "task.evaluate \\(test\\) has the wrong type"),
        ("launcher.setup=x", "launcher.setup \\(x\\) has the wrong type"),
        ("data=5", "data \\(5\\) has the wrong type"),
        ("seed=null", "seed \\(null\\) has the wrong type.*not Optional"),
        ("seed=1.5", "seed \\(1.5\\) has the wrong type.*Integer"),
        ("seed=true", "seed \\(true\\) has the wrong type"),
        ("training.batch_size=[8]", "training.batch_size \\(\\[8\\]\\) has the wrong type"),
        ("keep_weights=maybe", "keep_weights \\(maybe\\) has the wrong type.*bool"),
        ("results_dir=null", "results_dir \\(null\\) has the wrong type.*not Optional"),
        ("model.name=???", "missing.*name"),
        ("seed=???", "missing.*seed"),
        ("seed=${nothing}", "nothing.* not found"),
        ("results_dir=${nothing}/x", "nothing.* not found"),
        ("+seed=3", "already at 'seed'.*\\+\\+seed"),
        ("+task=mrpc", "Multiple values for task"),
        ("++task=mrpc", "not supported: '\\+\\+task=mrpc'"),
        ("~task.splits.nothing", "task.splits.nothing' does not exist"),
        ("~training.epochs", "~training.epochs.*does not support deletion"),
        ("~task", "missing.*name"),
        ("perf.sides=[a,", "cannot be composed"),
        ("=3", "'=3' names no key"),
        ("seed", "'seed' has no value: write seed=<value>"),
        ("seed =3", "cannot be composed"),
    ],
)
def test_both_refuse_the_same(override, words):
    overrides = ["launcher=slurm", override] if override.startswith("launcher.") else [override]
    with pytest.raises(REFUSED):
        by_hydra(overrides)
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        compose_config(overrides)


def test_a_key_that_a_plus_adds_and_nothing_reads_is_refused_though_hydra_takes_it():
    assert by_hydra(["+training.epoch=3"]).training.epochs == 3.0
    with pytest.raises(ConfigError, match="Unknown key 'training.epoch'. Did you mean 'training.epochs'"):
        compose_config(["+training.epoch=3"])


NAMES = [
    "runs,2", "a=b", "R&D", "it's", 'say "so"', "50%", "(x)", "run[3]", "[x]", "{a}", "{a", "データ", "Bücher", "a:b", "~/x", "$x", "a$b",
    "a#b", "a\\b", "end\\", "\\'", " a b ", "-x", "--flag", "x;y", "x|y", "*", "a?", "!", "`id`", "$(id)", "choice(a,b)", "range(1,3)",
    "0.10", "1e5", "007", "true", "None", "'a' and 'b'", "a\nb", "+x", "@x", "😀",
]  # fmt: skip


@pytest.mark.parametrize("key", ["results_dir", "data.root", "task.splits.train", "+task.splits.extra"])
def test_a_value_of_a_text_key_is_taken_as_it_is(key):
    for name in NAMES:
        config = compose_config([f"{key}={name}"])
        *parents, last = key.lstrip("+").split(".")
        node = config
        for parent in parents:
            node = getattr(node, parent)
        assert (node[last] if isinstance(node, dict) else getattr(node, last)) == name


@hypothesis.given(
    strategies.text().filter(
        lambda t: t.lower() != "null" and t[:1] not in "'\"" and "${" not in t and t != "???"
    )
)
@hypothesis.settings(max_examples=20, deadline=None)  # Hydra takes 0.3 s for each
def test_any_text_is_taken_as_it_is_by_both_ways(text):
    assert compose_config([f"data.root={text}"]).data.root == text
    # An interpolation beside it sends the whole to Hydra, which gets the text quoted.
    config = compose_config([f"data.root={text}", "cache_dir=${data.source}"])
    assert (config.data.root, config.cache_dir) == (text, "auto")
