"""transformers' Trainer as the peer: as documented, tuned, and at its best."""

import math
import tempfile
import time
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from bench.models.architectures import placeholder_tokenizer
from bench.perf.sides import LEARNING_RATE, Side, Work, warm_steps
from bench.perf.workload import Rows
from bench.runs.cost import synchronise
from bench.training.precision import resolve_dtype

PADDED = 128  # tokens: run_glue.py's default max_seq_length
MOST_LOGITS = 2**31  # of a batch part of `MaskedLmTrainerSide`


class Clock(TrainerCallback):
    """Takes the time from the end of the warm-up to the end of the training."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.begun, self.ended = device, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == warm_steps(self.device):
            synchronise(self.device)
            self.begun = time.perf_counter()
        elif state.global_step == state.max_steps:
            synchronise(self.device)
            self.ended = time.perf_counter()


class TrainerSide(Side):
    """transformers' Trainer as run_glue.py documents it."""

    how: ClassVar[str] = (
        f"transformers.Trainer as run_glue.py documents it: fp32, every row padded to {PADDED} tokens, default collator, "
        f"lr {LEARNING_RATE}, everything else default"
    )

    def __init__(self, model: PreTrainedModel, work: Work) -> None:
        self.device, self.clock, self.folder = work.device, Clock(work.device), tempfile.TemporaryDirectory()
        self.dtype = self.precision()
        pad = model.config.pad_token_id
        arguments = TrainingArguments(
            self.folder.name,
            max_steps=warm_steps(work.device) + work.steps,
            **{"per_device_train_batch_size": work.batch_size, **self.options()},
            learning_rate=LEARNING_RATE,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=work.device.type == "cpu",
        )
        rows = work.rows.dataset(self.pad_to(work.rows), pad)
        self.trainer = Trainer(
            model,
            arguments,
            data_collator=self.collator(pad),
            callbacks=[self.clock],
            train_dataset=rows,
            eval_dataset=rows,
        )
        self.trainer.remove_callback(PrinterCallback)

    def precision(self) -> str:
        return "fp32"

    def pad_to(self, rows: Rows) -> int | None:
        """Return the length that every row is padded to in advance; None leaves it to the collator."""
        return PADDED

    def options(self) -> dict[str, Any]:
        """Return arguments of the Trainer that are not its defaults."""
        return {}

    def collator(self, pad_token_id: int) -> Any:
        return default_data_collator

    def measure(self) -> float:
        self.trainer.train()
        return self.clock.ended - self.clock.begun


class TunedTrainerSide(TrainerSide):
    """The Trainer with the switches that make it faster without compiling."""

    how = (
        "transformers.Trainer tuned: bf16 on a GPU, rows of like length together and padded to the longest of the batch, "
        "fused AdamW, four loading processes on a GPU"
    )

    def precision(self) -> str:
        return resolve_dtype("auto", self.device)

    def pad_to(self, rows: Rows) -> int | None:
        return None

    def options(self) -> dict[str, Any]:
        loading = {"dataloader_num_workers": 4, "dataloader_persistent_workers": True}
        return {
            "bf16": self.dtype == "bf16",
            "optim": "adamw_torch_fused",
            "train_sampling_strategy": "group_by_length",
            **(loading if self.device.type == "cuda" else {}),
        }

    def collator(self, pad_token_id: int) -> Any:
        # The collator asks the tokenizer for the padding only.
        words = {"[PAD]": pad_token_id, "[UNK]": 1 - pad_token_id}
        model = Tokenizer(WordLevel(words, "[UNK]"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]")
        multiple = 8 if self.device.type == "cuda" else None
        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)


class BestTrainerSide(TrainerSide):
    """The Trainer at its best on a GPU.

    torch.compile's CUDA graphs want one shape: with rows grouped by length it compiles again, which was slower on an H100.
    """

    how = (
        "transformers.Trainer at its best: bf16, fused AdamW, torch_compile with mode reduce-overhead (CUDA graphs), every row "
        "padded to the longest row's length in multiples of 8, the last batch dropped, four persistent loading processes that "
        "prefetch four batches each into pinned memory, no check for NaN losses"
    )

    def __init__(self, model: PreTrainedModel, work: Work) -> None:
        # The first forward pass would set this, and the second compile the whole model again (transformers 5.23).
        model.config.problem_type = "single_label_classification"
        super().__init__(model, work)

    def precision(self) -> str:
        return "bf16"

    def pad_to(self, rows: Rows) -> int | None:
        return math.ceil(int(rows.lengths.max()) / 8) * 8

    def options(self) -> dict[str, Any]:
        return {
            "bf16": True,
            "optim": "adamw_torch_fused",
            "torch_compile": True,
            "torch_compile_mode": "reduce-overhead",
            "dataloader_drop_last": True,
            "dataloader_num_workers": 4,
            "dataloader_persistent_workers": True,
            "dataloader_prefetch_factor": 4,
            "dataloader_pin_memory": True,
            "logging_nan_inf_filter": False,
        }


class MaskedLmTrainerSide(TrainerSide):
    """The Trainer as run_mlm.py pretrains, with bf16 and fused AdamW: logits at every position."""

    how = (
        f"transformers.Trainer as run_mlm.py pretrains: rows of {PADDED} tokens, its collator for masked tokens, logits at every "
        "position, bf16 on a GPU, fused AdamW, four loading processes on a GPU; a batch whose logits are more than 2^31 numbers in "
        "parts, whose gradients are added up"
    )

    def __init__(self, model: PreTrainedModel, work: Work) -> None:
        config = model.config
        self.vocab_size = config.vocab_size
        self.parts = 1
        while work.batch_size // self.parts * PADDED * config.vocab_size > MOST_LOGITS:
            self.parts *= 2
        self.batch_size = max(1, work.batch_size // self.parts)
        predictor = AutoModelForMaskedLM.from_config(config).to(work.device)
        super().__init__(predictor, work)

    def precision(self) -> str:
        return resolve_dtype("auto", self.device)

    def options(self) -> dict[str, Any]:
        loading = {"dataloader_num_workers": 4, "dataloader_persistent_workers": True}
        return {
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.parts,
            "bf16": self.dtype == "bf16",
            "optim": "adamw_torch_fused",
            **(loading if self.device.type == "cuda" else {}),
        }

    def collator(self, pad_token_id: int) -> Any:
        tokenizer = placeholder_tokenizer(pad_token_id, self.vocab_size)
        collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        special = [0] * PADDED  # run_mlm.py computes it once, too
        return lambda rows: collate(
            [{"input_ids": row["input_ids"], "special_tokens_mask": special} for row in rows]
        )


class EvaluatingTrainerSide(TunedTrainerSide):
    """The Trainer's evaluation at its best.

    It is not compiled: the Trainer compiles the first evaluation of a model that it has not trained, and no other.
    """

    how = (
        "transformers.Trainer's evaluation at its best: weights in bf16 on a GPU, rows of like length together and padded to the "
        "longest of the batch, batches of 1,024 rows (32 on a CPU), four persistent loading processes on a GPU that prefetch four "
        "batches each into pinned memory"
    )

    def __init__(self, model: PreTrainedModel, work: Work) -> None:
        self.batch_size = work.batch_size
        super().__init__(model, work)
        self.measure()

    def options(self) -> dict[str, Any]:
        return super().options() | {
            "bf16": False,
            "bf16_full_eval": self.dtype == "bf16",
            "per_device_eval_batch_size": self.batch_size,
            "dataloader_prefetch_factor": 4 if self.device.type == "cuda" else None,
        }

    def measure(self) -> float:
        synchronise(self.device)
        begun = time.perf_counter()
        self.trainer.evaluate()
        return time.perf_counter() - begun
