"""A classifier as an ONNX graph, checked against torch, and the same with an int8 body."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.export.lookup import as_operators

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OPSET = 18  # of the operators that torch's exporter writes; every onnxruntime since 1.14 reads them
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # onnxscript brings onnx_ir
TOLERANCE = (
    1e-4  # of the greatest difference of a logit from torch's, as a share of the greatest logit (1 at least)
)


def check_installed(opset: int) -> None:
    """Raise EnvironmentBroken, with the extra to install, where a package is missing, ConfigError for an operator set that is too old."""
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError as error:
            raise EnvironmentBroken(
                f"--onnx needs the package {name}, which is missing: pip install -c constraints.txt -e '.[onnx]'."
            ) from error
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise ConfigError(
            f"--opset ({opset}) must be from {OPSET}, below which LayerNormalization and the reductions of the model cannot be said, "
            f"to {newest}, the newest that the installed onnx {metadata.version('onnx')} knows."
        )


class OnnxModel(nn.Module):
    """An ONNX file that is called as its torch model is, on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: as many as there are cores
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, **inputs: Tensor) -> Any:
        """Return an object whose `logits` (B, C) are those of the batch."""
        (logits,) = self.session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
        return SimpleNamespace(logits=torch.from_numpy(logits))


class _Logits(nn.Module):
    """The model with its inputs in a fixed order and nothing but logits as output."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def batch(model: "PreTrainedModel", names: list[str], rows: int, length: int) -> dict[str, Tensor]:
    """Return inputs (rows, length) of random tokens of the whole vocabulary, the last row half padding."""
    vocab_size, padding = model.config.vocab_size, model.config.pad_token_id or 0
    inputs = {name: torch.zeros(rows, length, dtype=torch.int64) for name in names}
    inputs["input_ids"] = torch.randint(
        vocab_size, (rows, length), generator=torch.Generator().manual_seed(0)
    )
    inputs["input_ids"][inputs["input_ids"] == padding] = (padding + 1) % vocab_size
    inputs["input_ids"][-1, length // 2 :], inputs["attention_mask"] = (
        padding,
        torch.ones(rows, length, dtype=torch.int64),
    )
    inputs["attention_mask"][-1, length // 2 :] = 0
    return inputs


@contextmanager
def quietly() -> Iterator[None]:
    """Keep out of the log what exporters tell their authors: packages that are not there, advice on other shapes.

    What a warning could mean for the file is seen in its logits, which `difference` compares with torch's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@torch.no_grad()
def write(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", path: Path, opset: int = OPSET
) -> float:
    """Write the classifier to `path` and return the greatest difference of its logits in onnxruntime from torch's.

    Inputs are those of the tokenizer, int64 (batch, sequence), both of any size; the output is `logits`. Raises BenchError
    where the difference is more than TOLERANCE.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    names = inputs_of(tokenizer)
    copied = deepcopy(model).eval()
    copied.set_input_embeddings(as_operators(copied.get_input_embeddings()))
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with quietly():
        program = torch.onnx.export(
            _Logits(copied, names),
            tuple(batch(model, names, 2, 8).values()),
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=["logits"],
            opset_version=opset,
            dynamic_shapes={"inputs": tuple(dynamic for _ in names)},
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(
        program.model
    )  # every node names the lines, with the folders of this machine, that made it
    program.save(path, external_data=False)
    found, greatest = (
        difference(model, tokenizer, path),
        max(1.0, float(model(**batch(model, names, 3, 33)).logits.abs().max())),
    )
    if found > TOLERANCE * greatest:
        raise BenchError(
            f"{path.name}: its logits differ from torch's by {found:.2g}, more than {TOLERANCE:g} of the greatest ({greatest:.2g})."
        )
    return found


@torch.no_grad()
def difference(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", path: Path) -> float:
    """Return the greatest difference of a logit of the ONNX file from the model's, for batches of other sizes than it was traced with.

    Raises BenchError for logits that are not finite.
    """
    exported, names = OnnxModel(path), inputs_of(tokenizer)
    batches = [batch(model, names, rows, length) for rows, length in ((1, 16), (3, 33))]
    missed = torch.cat(
        [(exported(**inputs).logits - model(**inputs).logits).flatten().abs() for inputs in batches]
    )
    if not missed.isfinite().all():  # a maximum passes over NaN
        raise BenchError(f"{path.name}: its logits or torch's are NaN or infinite, so it is not the model.")
    return float(missed.max())


def inputs_of(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the names of the graph's inputs: those that the tokenizer gives."""
    return [
        name
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in tokenizer.model_input_names
    ]


def write_int8(path: Path, target: Path) -> None:
    """Write the graph of `path` with the weights of its matrix products in int8; inputs are quantised as they come.

    Channels have scales of their own, and weights 7 bits: with 8, processors without VNNI overflow. Tables, codes and
    positions stay as they are.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quietly():
        quantize_dynamic(
            path,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
