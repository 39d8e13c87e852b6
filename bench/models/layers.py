"""The layers of an encoder, and the hidden states between them."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from bench.errors import ConfigError


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of the model's stacks, such as the layers of an encoder, or ALBERT's one group that all layers share."""
    for child in model.children():
        if isinstance(child, nn.ModuleList) and len({type(block) for block in child}) == 1:
            yield from child
        else:
            yield from blocks_of(child)


def hidden_states(encoder: Any, **inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the states (B, L, d) that enter the first layer and leave each one, those of the last as the encoder returns them.

    They are those of `output_hidden_states=True`. That leaves hooks within the layers, which torch.compile cannot trace: it would
    compile a layer in parts, also in each later training of the encoder. Raises ConfigError for an encoder whose layers do not
    hand their states on, one to the next.
    """
    states: list[Any] = []
    handed_on = True

    def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal handed_on
        entering = args[0] if args else None
        if not states:
            states.append(entering)
        handed_on &= entering is states[-1]
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in set(blocks_of(encoder))]
    try:
        last: Tensor = encoder(**inputs).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    whole = len(states) == encoder.config.num_hidden_layers + 1 and states[-1].shape == last.shape
    if not whole or not handed_on or states[0] is None:
        raise ConfigError(
            f"{type(encoder).__name__}: the states between its layers cannot be read, which recovery=distil "
            "learns from; use recovery=masked_lm."
        )
    return *states[:-1], last
