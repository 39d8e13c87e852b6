"""Whether a classifier reads rows as bench feeds them: padding on the right is ignored, and every token counts."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bench.errors import ConfigError
from bench.training.batching import Examples

READ = 16  # tokens of a row, enough to see how a model reads


@torch.no_grad()
def check_reading(model: Any, rows: Examples, max_length: int, path: str | None) -> None:
    """Raise ConfigError for a classifier whose answer depends on padding, or not on the words between first and last.

    Such architectures raise no error, and score as chance: GPT-2 reads the token before the first padding that its
    config.json names, XLNet reads the row's last position, and in a BERT with `is_decoder` the first token sees no
    other. The model must be on the CPU, with dropout off.
    """
    longest = int(rows.lengths.argmax())
    length = min(READ, int(rows.lengths[longest]), max_length - 1)
    if length < 3:
        return
    inputs, _ = rows.batch(np.array([longest]))
    inputs = {name: ids[:, :length].cpu() for name, ids in inputs.items()}
    pad = rows.pad | {"attention_mask": 0}
    padded = {name: torch.nn.functional.pad(ids, (0, 1), value=pad[name]) for name, ids in inputs.items()}
    ids, other = inputs["input_ids"], inputs["input_ids"].clone()
    other[:, 1:-1] = (ids[:, 1:-1] + 1) % model.config.vocab_size
    try:
        answer, after_padding, to_other = (
            cast(Tensor, model(**given).logits) for given in (inputs, padded, inputs | {"input_ids": other})
        )
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ConfigError(
            f"model.path ({path}): {type(model).__name__} cannot classify a row of text ({error}): use another encoder."
        ) from error
    if not torch.allclose(answer, after_padding, rtol=1e-3, atol=1e-4):
        raise ConfigError(
            f"model.path ({path}): the answer of {type(model).__name__} to a row changes when padding (token "
            f"{pad['input_ids']}; {model.config.pad_token_id} in config.json) follows it: use an encoder that ignores it."
        )
    if torch.allclose(answer, to_other, rtol=1e-6, atol=0):
        raise ConfigError(
            f"model.path ({path}): the answer of {type(model).__name__} to a row does not depend on its words, as of a "
            "model that reads from left to right (is_decoder): use an encoder."
        )
