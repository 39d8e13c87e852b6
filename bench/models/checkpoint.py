"""A pretrained model's weight files, and whether their tensors fit the architecture."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigError, EnvironmentBroken

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"  # of weights in several files: tensor -> file
# Buffers that older versions of transformers saved, and that models compute today.
BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids|masked_bias|inv_freq)$")


def weight_files(folder: Path) -> list[Path]:
    """Return [model.safetensors], or the shards that its index names, in order; [] where both are missing.

    Raises EnvironmentBroken for an index that cannot be read or names anything but files beside it.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        absent = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentBroken(
            f"{folder / INDEX} is not an index of weights ({error}): install the model again."
        ) from error
    if absent:
        raise EnvironmentBroken(
            f"{folder / INDEX} names {absent[0]}, which is not a file in {folder}: install the model again."
        )
    return [folder / name for name in names]


def check_fit(model: "PreTrainedModel", info: dict[str, Any], path: str | None) -> None:
    """Raise ConfigError where tensors of the body are missing, left over or of another shape.

    `info` is transformers' report on loading (`output_loading_info`). transformers only warns, and would train such
    tensors from random values. A new head, another task's head, a pooler and buffers are no fault.
    """
    missing = sorted(name for name in info["missing_keys"] if _in_body(model, name))
    left_over = sorted(name for name in info["unexpected_keys"] if _in_body(model, name))
    reshaped = sorted(key for key in info["mismatched_keys"] if _in_body(model, key[0]))
    if not (missing or left_over or reshaped):
        return
    body = [name for name in model.base_model.state_dict() if _in_body(model, name)]
    if len(missing) == len(body):  # the architecture knows none of the file's names
        left_over = sorted(info["unexpected_keys"])
    reasons = []
    if missing:
        reasons.append(f"{len(missing)} tensors of the body are missing ({_first(missing)})")
    if left_over:
        reasons.append(f"{len(left_over)} are left over ({_first(left_over)})")
    if reshaped:
        shapes = (f"{name} {tuple(stored)} for {tuple(expected)}" for name, stored, expected in reshaped)
        reasons.append(f"{len(reshaped)} have another shape than in config.json ({_first(shapes)})")
    cure = "use the config.json that the weights were saved with, or save the model with save_pretrained"
    if prefix := _prefix(model, missing, set(left_over)):
        cure = f"all names begin with '{prefix}', so save the model inside that wrapper with save_pretrained"
    raise ConfigError(
        f"model.path ({path}): the weights do not fit {type(model).__name__}, {', '.join(reasons)}: {cure}."
    )


def new_in_head(model: "PreTrainedModel", info: dict[str, Any]) -> list[str]:
    """Return the names of the head's tensors that the files lack or have in another shape."""
    absent = info["missing_keys"] | {name for name, *_ in info["mismatched_keys"]}
    return sorted(name for name in absent if _name_in_body(model, name) is None)


def check_values(model: "PreTrainedModel", path: str | None) -> None:
    """Raise ConfigError unless every parameter is fp32 and finite."""
    parameters = dict(model.named_parameters())
    for reason, names in (
        ("are not fp32", [n for n, p in parameters.items() if str(p.dtype) != "torch.float32"]),
        ("hold NaN or infinite values", [n for n, p in parameters.items() if not _is_finite(p)]),
    ):
        if names:
            raise ConfigError(
                f"model.path ({path}): {len(names)} of {len(parameters)} tensors {reason} ({_first(names)}): "
                "use another checkpoint."
            )


def _is_finite(values: "Tensor") -> bool:
    """Return whether all values are finite, by the least and the greatest: a thirtieth of the time of asking each."""
    return not values.numel() or all(bool(end.isfinite()) for end in values.aminmax())


def _name_in_body(model: "PreTrainedModel", name: str) -> str | None:
    """Return a tensor's name within the body, or None for a tensor outside the body."""
    first, _, rest = name.partition(".")
    if first == model.base_model_prefix:
        return rest
    # A body saved without a head has no prefix.
    return name if first in {key.partition(".")[0] for key in model.base_model.state_dict()} else None


def _in_body(model: "PreTrainedModel", name: str) -> bool:
    """Return whether the body needs the tensor, unlike a pooler's tensors and buffers."""
    inside = _name_in_body(model, name)
    return inside is not None and not inside.startswith("pooler.") and not BUFFERS.search(inside)


def _prefix(model: "PreTrainedModel", missing: list[str], left_over: set[str]) -> str | None:
    """Return the prefix that turns every missing name into a name left over, or None."""
    expected = [_name_in_body(model, name) or name for name in missing]
    for name in left_over if expected else ():
        before = name.removesuffix(expected[0])
        if before != name and all(f"{before}{other}" in left_over for other in expected):
            return before.removesuffix(f"{model.base_model_prefix}.")
    return None


def _first(names: Iterable[str], shown: int = 3) -> str:
    listed = list(names)
    return ", ".join(listed[:shown] + ["..."] * (len(listed) > shown))
