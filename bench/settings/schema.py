"""The typed configuration of a run. Hydra fills it from `conf/`; these dataclasses are its schema."""

from dataclasses import dataclass, field
from typing import Any

from bench.settings.assignments import AssignmentConfig
from bench.settings.embeddings import EmbeddingConfig
from bench.settings.launchers import LauncherConfig
from bench.settings.numbers import number, seed
from bench.settings.pretrainings import PretrainingConfig
from bench.settings.recoveries import RecoveryConfig


@dataclass
class ModelConfig:
    """An encoder: where it comes from and what it must look like."""

    name: str = "???"
    source: str = "hub"  # package | hub | local
    path: str | None = (
        None  # package: "<import name>/<folder or file>"; hub: "<owner>/<repo>"; local: a folder
    )
    revision: str | None = None  # pinned commit on the hub; version of a package
    # of model.safetensors, or of all its shards in their order, or of a tokenizer's files by name; checked when they are loaded
    sha256: str | None = None
    # checked when loaded, and used to plan without loading; null: read from config.json
    vocab_size: int | None = None
    width: int | None = None  # of the embedding table, likewise
    # tokens of the longest sequence it takes, likewise; null: read from config.json
    positions: int | None = None
    # pretrained | 4-bit (pretrained, stored rounded) | random (speed and memory only) | none (`architecture` alone, for a
    # pretraining); all but the first are named beside every number
    weights: str = "pretrained"
    # weights=none: the keys of config.json, model_type among them; path then names the tokenizer
    architecture: dict[str, Any] = field(default_factory=dict)
    # what a classifier's head reads: mean (of the last states) | cls (the first one); null: what the architecture's class does
    pooling: str | None = None
    # what the encoder was trained to see before each text; read by `export --encoder` only
    prefix: str = ""
    # task -> what of its data the encoder was trained on, as its card says; shown beside the task's numbers
    overlaps: dict[str, str] = field(default_factory=dict)
    license: str | None = None


@dataclass
class TaskConfig:
    """A task: a YAML file in `conf/task/`."""

    name: str = "???"
    suite: str = "???"  # lexical | glue | xnli
    task_version: int = 1  # raised whenever a change here changes numbers
    hub: str | None = None  # "<owner>/<repo>"
    hub_config: str | None = None  # the hub data set's configuration name
    revision: str | None = None  # pinned commit of the hub data set
    columns: list[str] = field(default_factory=list)  # one or two text columns
    label_column: str = "label"
    labels: list[str] | None = None  # class names in the order of their codes; null: regression
    label_range: list[float] | None = None  # regression: smallest and largest label
    # role -> split to read; a slice such as "train_subset[90%:]" is allowed (datasets' own slice syntax), and a split
    # of another task as "mnli:train" (a name of conf/task with the same columns and labels)
    splits: dict[str, str] = field(default_factory=dict)
    evaluate: list[str] = field(default_factory=lambda: ["validation"])  # roles whose metrics are reported
    # roles with hidden labels: predicted, stored, not scored
    predict: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)  # files apart; `evaluate` and `predict` read each
    train_language: str | None = None  # the language of every other role
    # category columns to score apart, kept where the data has them
    groups: list[str] = field(default_factory=list)
    official_rows: dict[str, int] = field(default_factory=dict)  # split -> rows in the official release
    metrics: list[str] = field(default_factory=list)  # names in bench/tasks/metrics.py
    headline: str = "accuracy"
    higher_is_better: bool = True
    chance: float | None = None  # headline of guessing uniformly
    # headline of always answering the most frequent class of the reported split
    majority: float | None = None
    average: bool = True  # part of the suite's average
    notes: str | None = None


@dataclass
class TrainingConfig:
    """The fine-tuning recipe."""

    epochs: float = number(3.0, above=0)
    max_steps: int | None = number(None, above=0)  # overrides epochs
    batch_size: int = number(32, above=0)
    learning_rate: float = number(5e-5, above=0)
    # the rate of the token embedding's parameters, as a multiple of learning_rate; not used by embedding=quantised, which trains none
    table_factor: float = number(1.0, above=0)
    weight_decay: float = number(0.01, least=0)
    # of all steps, linear from 0; then linear decay to 0
    warmup_fraction: float = number(0.1, least=0, most=1)
    max_grad_norm: float = number(1.0, above=0)
    max_length: int = number(128, above=0)  # tokens, pairs included
    # a seeded subset of the training split; recorded and shown
    max_train_examples: int | None = number(None, above=0)
    # none | dense: also learn the logits of the fine-tuned dense model (same task and seed)
    teacher: str = "none"
    teacher_weight: float = number(0.5, above=0, most=1)  # share of the loss that the teacher's logits make
    # auto (graph on a GPU, eager on a CPU) | eager | graph | compile (worth it for long runs)
    engine: str = "auto"
    dtype: str = "auto"  # auto (bf16 on a GPU, fp32 on a CPU) | fp32 | bf16
    # tokens of an evaluation that go through the model at once, padding included; null: 65,536 on a GPU, 2,048 on a CPU
    eval_batch_tokens: int | None = number(None, above=0)
    # rows that go through the model at once, gradients accumulated to batch_size; null: all
    device_batch: int | None = number(None, above=0)


@dataclass
class DataConfig:
    """Where task data comes from."""

    source: str = "auto"  # auto | generated | parquet | official | hub; auto: generated if the task is, parquet if root is set, else hub
    root: str | None = None  # folder of parquet or official files


@dataclass
class SamplingConfig:
    """The passages that are drawn from `recovery.corpus` and `assignment.corpus`; the corpus "task" is read as it is."""

    # to draw, no passage twice; null: all
    passages: int | None = number(None, above=0)
    # a language of n passages gives a share of n^exponent (Conneau et al., ACL 2020: 0.3); 1: as the text has them
    exponent: float = number(1.0, least=0, most=1)
    # codes such as [en,sw]; empty: all, and text of no named language
    languages: list[str] = field(default_factory=list)
    seed: int = seed()  # independent of the run's seed, so that seeds are paired over the same text


@dataclass
class PerfConfig:
    """What `bench perf` measures. Null: what bench/perf/selection.py names, on a CPU little of it."""

    work: list[str] | None = None  # training | distillation | evaluation | pretraining
    backbones: list[str] | None = None  # names in bench/models/architectures.py
    embeddings: list[str] = field(default_factory=lambda: ["dense", "subspace"])
    batch_sizes: list[int] | None = None
    sides: list[str] | None = None  # names in bench/perf/selection.py
    examples: int | None = None  # trained in each repeat; null: 1,600 on a GPU, 64 on a CPU
    repeats: int = 3
    together: int = 4  # models that a side of several trains side by side
    startup: bool = True  # also the seconds from the start of a process to its first step
    layers: bool = True  # also the embedding layer alone


@dataclass
class ReportConfig:
    """What the decision brief is asked. Read by `report`, `sweep` and `gate`."""

    language: str = "en"  # of brief.html: en | ja
    tolerated_loss: float = 1.0  # points of a task's headline metric (0.01 of a fraction)
    # that matter, by name; empty: all that the suite's records have
    tasks: list[str] = field(default_factory=list)
    model: str | None = None  # null: the model of the newest run
    suite: str | None = None  # null: the model's suite with most finished runs


@dataclass
class PriceConfig:
    """A price list and a load, a YAML file in `conf/price/`, from which the brief computes the saving."""

    name: str = "???"
    example: bool = False  # amounts are marked as examples to be replaced
    currency: str = ""
    price_per_gpu_hour: float | None = None  # of one instance with one GPU; null: no amounts are shown
    memory_gb: float = 16.0  # that an instance has for models (1 GB = 10^9 bytes)
    replicas: int = 1  # models kept loaded
    requests_per_day: float = 0
    utilisation: float = 1.0  # share of the time that an instance can be busy
    hours_per_month: float = 730


@dataclass
class GateConfig:
    """The limits of a deployment, a YAML file in `conf/gate/`; read by `gate`. Null and empty: no limit."""

    name: str = "???"
    model: str | None = None  # null: the only model that has the configuration
    configuration: str | None = (
        None  # as the tables name it; null: the configuration that the brief recommends
    )
    loss: dict[str, float] = field(default_factory=dict)  # task -> points that it may lose against dense
    # text of `bench coverage` -> known, well_fitted: least shares
    coverage: dict[str, dict[str, float]] = field(default_factory=dict)
    embedding_bytes: int | None = None
    total_bytes: int | None = None  # of the whole model
    # batch<rows> -> longest median forward; of `bench latency` where it was run
    latency_ms: dict[str, float] = field(default_factory=dict)
    # where latency is checked, as `cost.profiles` names it; null: the slowest of those measured
    device: str | None = None
    tokens: int | None = None  # of each row, as `bench latency` measured; null: its longest


@dataclass
class DriftConfig:
    """Limits of `bench drift`, which exits with 1 where a value is above its limit."""

    # Jensen-Shannon divergence of token frequencies (bits), beyond what shuffling the passages gives
    divergence: float = number(0.1, least=0)
    # share of the current tokens that the reference does not hold, likewise
    unseen: float = number(0.05, least=0)
    unknown: float = number(0.01, least=0)  # rise of the share of words with a token unknown to the tokenizer
    error: float = number(0.1, least=0)  # relative rise of the embedding's error, tokens by frequency


@dataclass
class ProfileConfig:
    """What `bench latency` measures: every batch size at every length."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 32])
    lengths: list[int] = field(default_factory=lambda: [16, 64, 128])  # tokens
    warmup: int = 2  # answers of each embedding before the first round of a cell
    rounds: int = 50  # of a cell at most; in each every embedding answers once
    seconds: float = 20.0  # after which a cell ends; it has 6 rounds at least
    starts: int = 3  # fresh processes of each embedding, after one that is not counted


@dataclass
class SearchConfig:
    """A search, a YAML file in `conf/search/`. The objectives are the mean score and the stored bytes."""

    name: str = "???"
    purpose: str = "???"
    fixed: list[str] = field(default_factory=list)  # overrides of every run
    # names in conf/task, each trained on; the score is the mean of their headlines
    tasks: list[str] = field(default_factory=list)
    # key or group -> its values: a candidate has a value of each
    space: dict[str, list[Any]] = field(default_factory=dict)
    # candidates that Optuna proposes; each of several processes may exceed it by one
    trials: int = number(24, least=1)
    # trials that a process takes at once: they are fitted, compared and trained together
    batch: int = number(6, least=1)
    seeds: int = number(4, least=1)  # of the candidates near the front; all others have seed 0 only
    # share by which a smaller or equal embedding's fit must be better to keep a candidate from training
    slack: float = number(0.05, least=0)


@dataclass
class RunConfig:
    """Everything that a run depends on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    assignment: AssignmentConfig = field(default_factory=AssignmentConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    body: str = "fp32"  # fp32 | bf16 | int8 (linear layers): how all but the embedding is stored after the training; computed with in fp32
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = seed()
    # Below: keys of where and how, which are not part of a run's identity.
    chosen: dict[str, str] = field(default_factory=dict)  # group -> file of conf/<group>/, noted by Hydra
    results_dir: str = "results"
    cache_dir: str = ".cache"
    device: str = "auto"  # auto | cpu | cuda
    # the trained model goes to results_dir/models/<name>-<run_id>/, from where `export` takes it
    keep_weights: bool = False
    # with torch's deterministic algorithms, without autotuning, and with clusters found on the CPU, at some cost in speed; recorded
    deterministic: bool = False
    sweep: Any = None  # a sweep's declaration (conf/sweep/), read by `plan`, `sweep`, `status`
    overwrite: str = "only-missing"  # which runs of a sweep are run: only-missing (interrupted ones too) | failed (these too)
    # processes of a local sweep; null: as many as GPUs, or as CPU cores. In a worker: those that share its GPU
    workers: int | None = number(None, least=1)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)  # read by `drift` only
    profile: ProfileConfig = field(default_factory=ProfileConfig)  # read by `latency` only
    search: SearchConfig = field(default_factory=SearchConfig)  # read by `search` only
    perf: PerfConfig = field(default_factory=PerfConfig)  # read by `perf` only
    report: ReportConfig = field(default_factory=ReportConfig)
    price: PriceConfig = field(default_factory=PriceConfig)
    gate: GateConfig = field(default_factory=GateConfig)
