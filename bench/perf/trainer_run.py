"""A run that transformers.Trainer trains, to compare results, not speed."""

import tempfile
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

from bench.errors import ConfigError
from bench.runs import cost
from bench.runs.evaluate import evaluated
from bench.runs.execute import check_folders, recorded
from bench.runs.identity import Prepared
from bench.runs.loading import Loaded, device_of, load, trainees_of
from bench.store import Record
from bench.training.batching import Examples
from bench.training.finetune import Outcome, Trainee
from bench.training.lane import losses_of
from bench.training.precision import resolve_dtype

NAME = "trainer"  # in place of an engine's


def execute(prepared: Prepared) -> Record:
    """Carry the run out with transformers.Trainer in place of an engine, and return its record, which is written.

    The model with its new head, the rows, the recipe and the evaluation are the run's; the order of the rows and the
    dropout masks are the Trainer's. Raises ConfigError for a recipe that the Trainer does not have, else as a run does.
    """
    training = prepared.config.training
    for key, plain in (("teacher", "none"), ("table_factor", 1)):
        if (value := getattr(training, key)) != plain:
            raise ConfigError(
                f"training.{key} ({value}) is nothing that transformers.Trainer has: compare with {plain}."
            )
    check_folders(prepared)
    device = device_of(prepared.config)
    return recorded(prepared, device, lambda: _measured(prepared, device))


def _measured(prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """Return the record's parts."""
    cost.reset_peak_memory(device)
    (loaded,) = load([prepared], device)
    (trainee,) = trainees_of([prepared], [loaded], device)
    outcome = _train(trainee, loaded, resolve_dtype(prepared.config.training.dtype, device))
    return evaluated(prepared, loaded, outcome, device)


def _train(trainee: Trainee, loaded: Loaded, dtype: str) -> Outcome:
    """Train the model in place, with the settings of `TrainingConfig` under the Trainer's names."""
    config, steps, on_gpu = trainee.config, trainee.steps, trainee.train.offsets.is_cuda
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup_steps=int(config.warmup_fraction * steps),
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch_fused",
            bf16=dtype == "bf16",
            seed=trainee.seed,
            train_sampling_strategy="group_by_length",
            dataloader_num_workers=4 if on_gpu else 0,
            logging_steps=max(1, steps // 20),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not on_gpu,
            remove_unused_columns=False,  # all are used, which the signature of a pooled classifier does not tell
            label_names=["labels"],
        )
        trainer = Trainer(
            trainee.model,
            arguments,
            data_collator=DataCollatorWithPadding(loaded.reader.tokenizer),
            train_dataset=_rows(trainee.train),
            compute_loss_func=_mean_loss,
        )
        trainer.model_accepts_loss_kwargs = False  # the loss is `_mean_loss`, not the model's
        trainer.remove_callback(PrinterCallback)
        trained = trainer.train()

    return Outcome(
        steps=steps,
        epochs=steps / trainee.per_epoch,
        seconds=trained.metrics["train_runtime"],
        start_seconds=0.0,
        examples=steps * config.batch_size,
        curve=[[entry["step"], entry["loss"]] for entry in trainer.state.log_history if "loss" in entry],
        engine=NAME,
        fallback=None,
        device_batch=config.batch_size,
        runs_at_once=1,
    )


def _rows(examples: Examples) -> datasets.Dataset:
    """Return the examples as a data set of unpadded rows."""
    ends = torch.from_numpy(examples.lengths).cumsum(0)[:-1]
    columns = {
        name: [row.numpy() for row in flat.cpu().tensor_split(ends)] for name, flat in examples.tokens.items()
    }
    return datasets.Dataset.from_dict(columns | {"labels": examples.labels.cpu().numpy()})


def _mean_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Return the mean of the rows' losses, as our engines take it."""
    return losses_of(outputs["logits"], labels).mean()
