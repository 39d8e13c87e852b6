"""A record's form: every key with its unit, its meaning, and what null means.

Keys that older records lack are `NotRequired`, or the comment says so.
"""

from typing import Any, NotRequired, TypedDict

SCHEMA_VERSION = 1
CHOSEN = ("model", "task", "embedding", "assignment", "recovery", "training")  # groups of `chosen`
STATUSES = ("ok", "failed", "oom", "diverged", "timeout", "interrupted")


class TaskPart(TypedDict):
    name: str
    suite: str
    version: int
    source: str  # generated | parquet | official | hub
    data_sha256: str  # digest of the data, or the hub revision it is pinned to
    # role -> {split, rows, official_rows, truncated, unknown}, for train also max_train_examples where it is limited.
    # `truncated` is a share of the rows, `unknown` a share of the tokens: those that the tokenizer cannot read (newer
    # records only). Of a role in several languages also (newer records only) `languages`: language -> {rows, tokens,
    # distinct_tokens}: of its rows as the model reads them, cut and without special tokens.
    splits: dict[str, dict[str, Any]]
    chance: float | None
    majority: float | None
    average: bool  # counted in the suite's average


class ModelPart(TypedDict):
    name: str
    revision: str | None
    sha256: str | None  # of the weights
    weights: str  # pretrained | random | 4-bit | none: an architecture
    width: int
    vocab_size: int


class SizePart(TypedDict):
    # Floating-point values that training changes. Older records count the frozen integers of `quantised`, too.
    embedding_params: int
    # Packed codes and ids, frozen integers with their scales (older records: no integers); 0 for codes computed from the token id.
    code_bits: int
    embedding_bytes: int  # stored: floats, packed codes, integers
    dense_embedding_params: int
    dense_embedding_bytes: int
    total_params: int  # whole model, task head included
    total_bytes: int  # stored: the embedding, and the rest in the form that config.body names (default fp32)
    file_bytes: int | None  # measured: the saved embedding as a safetensors file
    memory_bytes: NotRequired[int]  # measured: the embedding's tensors in memory; older records lack the key
    # Beside the model: tokenizer.json in the compact form that exports ship; older records lack the key.
    tokenizer_bytes: NotRequired[int]
    param_saving: float  # 1 - embedding_params / dense_embedding_params
    byte_saving: float  # 1 - embedding_bytes / dense_embedding_bytes


class FitPart(TypedDict):
    relative_error: float | None  # ||E - E'||_F / ||E||_F before training; null for a random initialisation
    # The same in each tenth of the tokens, from the most to the least frequent in the tokenised training rows.
    decile_errors: NotRequired[list[float] | None]
    distinct_codes: int | None
    codes_sha256: str | None
    codes_device: NotRequired[
        str | None
    ]  # cpu | cuda: where clusters were found (older records: cpu); null: none


class HeadlinePart(TypedDict):
    split: str
    metric: str
    value: float
    higher_is_better: bool


class TrainingPart(TypedDict):
    steps: int
    epochs: float
    train_rows: int
    seconds: float  # of the training steps
    start_seconds: float  # capturing or compiling the step
    engine: str  # eager | graph | compile
    engine_fallback: str | None  # why the engine is not the one that was configured
    examples_per_second: float
    effective_batch: int
    deterministic: NotRequired[bool]  # with torch's deterministic algorithms; older records lack the key
    device_batch: int  # rows of one forward pass; the gradients of a batch's parts are summed
    runs_at_once: int  # trained side by side; `seconds` and the peak of memory are those of all of them
    processes: int  # that shared each batch, a device each
    oom_retries: int  # restarts with half the device batch, each after the device ran out of memory
    dtype: str  # fp32 | bf16
    curve: list[list[float]]  # [step, mean training loss since the previous point]
    collapsed: bool  # one class predicted for the whole reported split


class PretrainingPart(TypedDict):
    """The pretraining that a run started from; many runs share it."""

    name: str
    seed: int
    sha256: str  # of the encoder's tensors (older records: of its file)
    reused: bool  # from the cache
    steps: int
    tokens: int  # seen, with repetitions
    tokens_per_second: float
    curve: list[list[float]]  # [step, mean training loss since the previous point]
    validation_loss: float  # in nats, on rows held out
    perplexity: float  # its exponential
    train_rows: int
    held_out_rows: int
    text_tokens: int  # of the whole text
    unknown: float  # share of them that the tokenizer does not know
    text_sha256: str  # of the passages joined by line feeds
    seconds: float  # of the training steps
    start_seconds: float  # capturing or compiling the step
    engine: str
    fallback: str | None  # why the engine is not the configured one
    dtype: str
    device: str
    device_hours: float  # its share, where models trained side by side
    runs_at_once: int
    processes: int
    peak_memory_bytes: int | None  # allocated by torch; null: on a CPU, or beside other models


class LatencyPart(TypedDict):
    batch: int  # rows
    tokens: int  # of each row
    rounds: int
    p50_ms: float
    p95_ms: float
    rows_per_second: float  # over all rounds
    ratio_to_dense: float | None  # median of the rounds' ratios; null for dense itself
    ratio_low: float | None  # the ratio's 95 % interval
    ratio_high: float | None


class ProfilePart(TypedDict):
    """Measured by `bench latency` with random weights, on which speed and memory do not depend."""

    dtype: str  # fp32 | bf16
    file_bytes: int  # of the whole model, as a safetensors file
    latency: list[LatencyPart]
    cold_start_seconds: float  # from the start of a new process to its first answer
    load_seconds: float  # the part of it after the imports
    before_bytes: int | None  # memory without any model: resident on a CPU, allocated by torch on a GPU
    resident_bytes: int | None  # after the first answer
    peak_bytes: int  # after the largest batch


class CostPart(TypedDict):
    # GPU: allocated by torch. CPU: the resident memory of the process, at its peak within this run.
    peak_memory_bytes: int | None
    # "batch1", "batch32": median forward on the evaluation texts; null: other runs shared the GPU.
    latency_ms: dict[str, float] | None
    # By device, in older records only: profiles are in latency/, where a report finds them.
    profiles: dict[str, ProfilePart] | None


class Record(TypedDict):
    schema_version: int
    run_id: str  # first 12 hex digits of the SHA-256 of the canonical configuration
    status: str  # one of STATUSES
    name: str  # <model>/<task>/<method-slug>/s<seed>
    created_at: str  # UTC, ISO 8601
    config: dict[str, Any]  # canonical: resolved, without the keys that the method does not use
    # Group (of CHOSEN) -> the file of conf/<group>/ that it began from; no part of the identity.
    chosen: NotRequired[dict[str, str]]
    task: TaskPart | None
    model: ModelPart | None
    size: SizePart | None
    fit: FitPart | None
    # split[/language or category] -> metric -> value, as a fraction; null: the run failed. If `training` is there
    # nevertheless, only the scoring failed: the predictions are stored, and `bench rescore` completes the record.
    metrics: dict[str, dict[str, float]] | None
    headline: HeadlinePart | None
    training: TrainingPart | None
    # name; for a recovered model also sha256 (of its tensors; older records: of the file), reused, texts, steps, engine, curve, runs_at_once
    # (trained side by side; newer records only), the seconds of all of them, and stored_states (newer records only);
    # where the corpus names languages (newer records only) also `languages`: language -> its passages among the texts
    recovery: dict[str, Any] | None
    # Of a model pretrained here (PretrainingPart); other records lack the key.
    pretraining: NotRequired["PretrainingPart"]
    cost: CostPart | None
    # commit, dirty, packages, python, platform, device, cuda, command, slurm_job_id
    provenance: dict[str, Any]
    error: dict[str, str] | None  # type, message, traceback (its end)
