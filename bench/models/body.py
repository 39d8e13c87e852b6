"""The body in fewer bits: the weights outside the embedding, rounded after training, packed in a file, fp32 in use.

bf16 rounds every parameter. int8 rounds the matrices of linear layers only, symmetrically, with a scale for each output
channel (weight-only quantisation, the vector-wise absmax of Dettmers et al., LLM.int8(), NeurIPS 2022). Biases, norms and
positions stay fp32.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.embeddings import rounding
from bench.embeddings.rounding import FLOAT_BYTES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMS = ("fp32", "bf16", "int8")


def forms(model: "PreTrainedModel", body: str) -> dict[str, str]:
    """Return parameter name -> stored form of every parameter outside the embedding, for a body in the form `body`."""
    embedding = {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    return {
        name: body if body != "int8" or id(parameter) in matrices else "fp32"
        for name, parameter in model.named_parameters()
        if id(parameter) not in embedding
    }


def stored_bytes(model: "PreTrainedModel", body: str) -> int:
    """Return the bytes of the body's parameters and their scales in this form; a shared parameter counts once."""
    parameters = dict(model.named_parameters())
    return sum(_bytes(parameters[name], form) for name, form in forms(model, body).items())


def _bytes(parameter: Tensor, form: str) -> int:
    if form == "int8":
        return rounding.stored_bytes(parameter.shape[0], parameter.shape[1], form)
    return parameter.numel() * (2 if form == "bf16" else FLOAT_BYTES)


@torch.no_grad()
def round_off(model: "PreTrainedModel", body: str) -> None:
    """Round the body's parameters in place to the values that they have after saving in this form and loading."""
    parameters = dict(model.named_parameters())
    for name, form in forms(model, body).items():
        parameters[name].copy_(_restored(_stored(parameters[name], form)))


def pack(state: dict[str, Tensor], model: "PreTrainedModel", body: str) -> dict[str, Tensor]:
    """Return the model's state as stored in a file: int8 numbers have "<name>_scales" (n, 1) beside them."""
    chosen = forms(model, body)
    return {
        name + part: tensor
        for name, whole in state.items()
        for part, tensor in _stored(whole, chosen.get(name, "fp32")).items()
    }


def unpack(state: dict[str, Tensor], model: "PreTrainedModel", body: str) -> dict[str, Tensor]:
    """Return the state that was packed, the body in fp32; raises KeyError where a part is missing."""
    state = dict(state)
    for name, form in forms(model, body).items():
        if form != "fp32":
            parts = ("", "_scales") if form == "int8" else ("",)
            state[name] = _restored({part: state.pop(name + part) for part in parts})
    return state


def _stored(tensor: Tensor, form: str) -> dict[str, Tensor]:
    """Return the parts of a tensor in a file.

    Scales are bf16: 127 times a bf16 number is exact in fp32, so that values already rounded are stored without loss.
    fp16 would be too narrow for the scales of small channels.
    """
    if form == "int8":
        numbers, scales = rounding.quantise(tensor, form, torch.bfloat16)
        return {"": numbers, "_scales": scales}
    return {"": tensor.bfloat16() if form == "bf16" else tensor}


def _restored(parts: dict[str, Tensor]) -> Tensor:
    return parts[""].float() * parts["_scales"].float() if "_scales" in parts else parts[""].float()
