"""This project's sides: its engines in a training and in a recovery, and its evaluation."""

import time
from collections.abc import Sequence
from typing import ClassVar, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.models.architectures import placeholder_tokenizer
from bench.perf.sides import LEARNING_RATE, Side, Work, warm_steps
from bench.runs.cost import synchronise
from bench.settings.pretrainings import MaskedLmPretrainingConfig
from bench.settings.recoveries import DistilConfig
from bench.settings.schema import TrainingConfig
from bench.training import stored_states
from bench.training.batching import Examples, evaluation_tokens
from bench.training.engine import make_engine
from bench.training.finetune import Trainee, predict
from bench.training.lane import Objective
from bench.training.precision import resolve_dtype
from bench.training.pretraining.masked_rows import MaskedRows
from bench.training.recoveries import rows_losses
from bench.training.recoveries.distil import HiddenStates


def _examples(work: Work, model: PreTrainedModel) -> Examples:
    """Return the rows on the device."""
    return Examples.from_dataset(work.rows.dataset(), model.config.pad_token_id, work.device)


class EngineSide(Side):
    """The engine `choice` on one trainee, or on several side by side."""

    how: ClassVar[str] = "this project: length buckets, rows on the device, fused AdamW, bf16 on a GPU"

    def __init__(self, choice: str, trainees: Sequence[Trainee], work: Work) -> None:
        self.work, self.dtype = work, resolve_dtype("auto", work.device)

        # The configuration's steps, or all measured ones if they are more, decide which lengths get a graph.
        config = trainees[0].config
        config.max_steps = max(warm_steps(work.device) + work.repeats * work.steps, trainees[0].steps)
        self.lanes = [trainee.lane(self.dtype) for trainee in trainees]
        self.engine, self.fallback = make_engine(choice, self.lanes)

        self.done = 0
        self._run(warm_steps(work.device))

    def _run(self, steps: int) -> None:
        for step in range(self.done, self.done + steps):
            self.engine.step(step)
        self.done += steps
        synchronise(self.work.device)

    def measure(self) -> float:
        begun = time.perf_counter()
        self._run(self.work.steps)
        return time.perf_counter() - begun


def training_side(choice: str, models: Sequence[PreTrainedModel], work: Work) -> EngineSide:
    """Return the fine-tuning of the models side by side."""
    config = TrainingConfig(batch_size=work.batch_size, learning_rate=LEARNING_RATE)
    data = _examples(work, models[0])
    trainees = [Trainee(model, data, config, seed, "perf") for seed, model in enumerate(models)]
    return EngineSide(choice, trainees, work)


def distillation_side(
    choice: str, students: Sequence[PreTrainedModel], teacher: PreTrainedModel, stored: bool, work: Work
) -> EngineSide:
    """Return the training of `recovery=distil`, of several students side by side: its learner, its rates, no weight decay.

    `stored` says that the teacher's states are computed once, before the clock starts, instead of in every step.
    """
    # The teacher, or its states, for all students.
    recipe, data = DistilConfig(), _examples(work, students[0])
    target: nn.Module | Tensor = teacher.base_model
    if stored:
        data = stored_states.with_positions(data)
        target = stored_states.states_of(teacher.base_model.eval(), data, resolve_dtype("auto", work.device))

    # The students.
    config = TrainingConfig(
        max_steps=recipe.steps,
        batch_size=work.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
    )
    trainees = []
    for seed, student in enumerate(students):
        table = frozenset(student.get_input_embeddings().parameters())
        objective = Objective(rows_losses, table, recipe.table_factor)
        learner = HiddenStates(student.base_model, target)
        trainees.append(Trainee(learner, data, config, seed, "perf", objective))
    return EngineSide(choice, trainees, work)


def pretraining_side(choice: str, model: PreTrainedModel, work: Work) -> EngineSide:
    """Return the training of `pretraining=masked_lm`: its learner and its recipe."""
    recipe, data = MaskedLmPretrainingConfig(), _examples(work, model)
    tokenizer = placeholder_tokenizer(model.config.pad_token_id, model.config.vocab_size)
    config = TrainingConfig(
        max_steps=recipe.steps,
        batch_size=work.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    learner = MaskedRows(cast(PreTrainedModel, model.base_model), tokenizer, seed=0).to(work.device)
    objective = Objective(rows_losses, by_step=True)
    return EngineSide(choice, [Trainee(learner, data, config, 0, "perf", objective)], work)


class PredictionSide(Side):
    """The evaluation of a run, with its fp32 weights."""

    how = "this project's evaluation: rows on the device, longest first, bf16 on a GPU, batches of 65,536 tokens there"

    def __init__(self, model: PreTrainedModel, work: Work) -> None:
        self.model, self.work, self.dtype = model, work, resolve_dtype("auto", work.device)
        self.examples = _examples(work, model)
        self.tokens = evaluation_tokens(TrainingConfig(), work.device)
        self.measure()

    def measure(self) -> float:
        begun = time.perf_counter()
        predict(self.model, self.examples, self.tokens, self.dtype)
        return time.perf_counter() - begun
