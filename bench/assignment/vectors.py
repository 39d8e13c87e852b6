"""What a token means to the pretrained model: its mean hidden state in context."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from bench.store import key, lines_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTEXT = 128  # tokens of a text that are read
# tokens of text that are used: as much computing as the isolated tokens of a vocabulary of 30,522
BUDGET = 1 << 16
LAYER = None  # the middle layer, in records and in the keys of cached vectors
READ = 8 * BUDGET  # tokens of text to choose from


@dataclass(frozen=True)
class TokenVectors:
    """Token vectors that are computed only if needed: `key` is their digest, `compute` returns them, (V, d)."""

    key: str
    compute: Callable[[], np.ndarray]


def vectors_key(model: "PreTrainedModel", rules_sha256: str, texts: Iterable[str]) -> str:
    """Return a SHA-256 over all that decides `token_vectors`: weights (no head, no pooler), the tokenizer's rules, texts."""
    # The pooler comes after the layers, and is random where a checkpoint has none.
    state = {
        name: tensor.cpu().numpy()
        for name, tensor in model.base_model.state_dict().items()
        if not name.startswith("pooler.")
    }
    return key(LAYER, CONTEXT, BUDGET, READ, rules_sha256, state, lines_sha256(texts))


def token_vectors(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Iterable[str],
    batch_size: int,
) -> np.ndarray:
    """Return a vector for each token, (V, d) float32: the mean of its hidden states over its occurrences in the texts.

    The states are those of the middle layer, in the texts that `_informative` selects. A token that is in none of them has
    its state in `[CLS] token [SEP]`. The model stays as it was.
    """
    layer = model.config.num_hidden_layers // 2
    vocab_size = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    sums = torch.zeros(vocab_size, model.config.hidden_size)
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    with _forward(model, layer) as forward:
        for ids, states in forward(_informative(tokenizer, texts, vocab_size), batch_size):
            sums.index_add_(0, ids, states)
            counts += torch.bincount(ids, minlength=vocab_size)
        missing = (counts == 0).nonzero()[:, 0].tolist()
        alone = [[tokenizer.cls_token_id, token, tokenizer.sep_token_id] for token in missing]
        for ids, states in forward(alone, batch_size):
            sums[ids[1::3]] = states[1::3]
    return sums.div_(counts.clamp(min=1)[:, None]).numpy()


def _informative(
    tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str], vocab_size: int
) -> list[list[int]]:
    """Return the token ids of the texts to use: those with a new token, then the rest, up to BUDGET tokens."""
    unseen = np.ones(vocab_size, dtype=bool)
    new: list[list[int]] = []
    rest: list[list[int]] = []
    read = used = 0
    stream = iter(texts)
    while used < BUDGET and read < READ and (batch := list(islice(stream, 1024))):
        length = min(CONTEXT, tokenizer.model_max_length)
        for ids in cast(list[list[int]], tokenizer(batch, truncation=True, max_length=length)["input_ids"]):
            brings_new = unseen[ids].any()
            (new if brings_new else rest).append(ids)
            unseen[ids] = False
            read, used = read + len(ids), used + len(ids) * bool(brings_new)
    ordered = new + rest
    ends = np.cumsum([len(ids) for ids in ordered])
    return ordered[: int(np.searchsorted(ends, BUDGET, side="right"))]


class _Reached(Exception):
    """Leaves the forward pass with a layer's hidden states, before the layers above are computed."""

    def __init__(self, states: torch.Tensor) -> None:
        self.states = states


def _stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise _Reached(args[0] if args else kwargs["hidden_states"])


Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]  # ids (n,), states (n, d)


@contextmanager
def _forward(model: "PreTrainedModel", layer: int) -> Iterator[Callable[[list[list[int]], int], Batches]]:
    """Yield a function from sequences and a batch size to batches; restore the model and torch's threads at the end.

    A batch holds sequences of similar length. On a CPU one thread computes each batch, and batches run side by side: that
    is faster for short sequences, and the sums do not depend on the number of threads.
    """
    # 40 modules, which a run does not need where codes are cached or there are none
    from joblib import Parallel, delayed

    base, device = model.base_model, model.device
    depth, training, threads = model.config.num_hidden_layers, model.training, torch.get_num_threads()
    stacks = [m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    stop_early = layer < depth and bool(stacks)  # an architecture that shares its layers has no such list
    if not stop_early:  # a copy gets the hooks that `output_hidden_states` leaves
        base = copy.deepcopy(base).eval()
    hook = stacks[0][layer].register_forward_pre_hook(_stop, with_kwargs=True) if stop_early else None

    def states_of(batch: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(s) for s in batch], True, model.config.pad_token_id or 0
        )
        real = torch.arange(ids.shape[1]) < torch.tensor([len(s) for s in batch])[:, None]
        with torch.inference_mode():
            try:
                arguments = {"input_ids": ids.to(device), "attention_mask": real.long().to(device)}
                states = base(**arguments, output_hidden_states=not stop_early).hidden_states[layer]
            except _Reached as reached:
                states = reached.states
            return ids[real], states[real.to(device)].float().cpu()

    def forward(sequences: list[list[int]], batch_size: int) -> Batches:
        ordered = sorted(sequences, key=len)
        batches = (ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size))
        jobs = -1 if device.type == "cpu" else 1
        pool = Parallel(jobs, backend="threading", return_as="generator")
        return cast(Batches, pool(delayed(states_of)(batch) for batch in batches))

    model.eval()
    torch.set_num_threads(1)
    try:
        yield forward
    finally:
        if hook:
            hook.remove()
        model.train(training)
        torch.set_num_threads(threads)
