"""A model as an ONNX graph, checked against torch, and the same with an int8 body."""

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

OPSET = 18  # the operator set of torch's exporter; every onnxruntime since 1.14 reads it
# Packages of the extra [onnx], imported inside functions as they may be absent; onnxscript brings onnx_ir.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# The greatest difference of a number of the output from torch's, as a share of the greatest one (at least 1).
TOLERANCE = 1e-4


def check_installed(opset: int) -> None:
    """Check packages and operator set before any work.

    Raises EnvironmentBroken with the extra to install if a package is missing, ConfigError for an operator set that is
    too old or too new.
    """
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
            f"--opset ({opset}) must be from {OPSET} to {newest}: lower ones lack LayerNormalization and the model's reductions, "
            f"and the installed onnx {metadata.version('onnx')} has no higher one."
        )


class OnnxModel(nn.Module):
    """An ONNX file on the CPU, called like its torch model."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: one a core
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.output = self.session.get_outputs()[0].name

    def forward(self, **inputs: Tensor) -> Any:
        """Return an object with the file's output under its name: `logits` (B, C) or `sentence_embedding` (B, d)."""
        (values,) = self.session.run([self.output], {name: tensor.numpy() for name, tensor in inputs.items()})
        return SimpleNamespace(**{self.output: torch.from_numpy(values)})


class _Only(nn.Module):
    """The model with inputs in a fixed order and a single output."""

    def __init__(self, model: nn.Module, names: list[str], output: str) -> None:
        super().__init__()
        self.model, self.names, self.output = model, names, output

    def forward(self, *inputs: Tensor) -> Tensor:
        values: Tensor = getattr(self.model(**dict(zip(self.names, inputs, strict=True))), self.output)
        return values


def batch(model: "PreTrainedModel", names: list[str], rows: int, length: int) -> dict[str, Tensor]:
    """Return inputs (rows, length) of random tokens of the whole vocabulary; the last row is half padding."""
    vocab_size, padding = model.config.vocab_size, model.config.pad_token_id or 0
    inputs = {name: torch.zeros(rows, length, dtype=torch.int64) for name in names}
    inputs["input_ids"] = torch.randint(
        vocab_size, (rows, length), generator=torch.Generator().manual_seed(0)
    )
    inputs["input_ids"][inputs["input_ids"] == padding] = (padding + 1) % vocab_size
    inputs["input_ids"][-1, length // 2 :] = padding
    inputs["attention_mask"] = torch.ones(rows, length, dtype=torch.int64)
    inputs["attention_mask"][-1, length // 2 :] = 0
    return inputs


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the exporters' warnings on absent packages and other shapes, which mean nothing to a user.

    A warning that matters shows in the output, which `difference` compares with torch's.
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
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    path: Path,
    opset: int = OPSET,
    output: str = "logits",
) -> float:
    """Write the model to `path` and return the greatest difference of its output in onnxruntime from torch's.

    The inputs are the tokenizer's, int64 (batch, sequence) of any size; `output` is what the model calls it. Raises
    BenchError if the difference exceeds TOLERANCE.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    names = inputs_of(tokenizer)
    # Trace a copy whose embedding uses standard operators only.
    copied = deepcopy(model).eval()
    copied.set_input_embeddings(as_operators(copied.get_input_embeddings()))
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with quietly():
        program = torch.onnx.export(
            _Only(copied, names, output),
            tuple(batch(model, names, 2, 8).values()),
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=[output],
            opset_version=opset,
            dynamic_shapes={"inputs": tuple(dynamic for _ in names)},
        )
    assert program is not None

    # Every node names the source lines that made it, with folders of this machine: drop them.
    ClearMetadataAndDocStringPass()(program.model)
    program.save(path, external_data=False)

    # Compare the file's output with torch's.
    greatest = max(1.0, float(getattr(model(**batch(model, names, 3, 33)), output).abs().max()))
    if (off := difference(model, tokenizer, path)) > TOLERANCE * greatest:
        raise BenchError(
            f"{path.name}: its output ({output}) differs from torch's by {off:.2g}, more than {TOLERANCE:g} of the greatest ({greatest:.2g})."
        )
    return off


@torch.no_grad()
def difference(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", path: Path) -> float:
    """Return the greatest difference of the ONNX file's output from the model's, on batches of sizes that were not traced.

    Raises BenchError for an output that is not finite.
    """
    exported, names = OnnxModel(path), inputs_of(tokenizer)
    output = exported.output
    batches = [batch(model, names, rows, length) for rows, length in ((1, 16), (3, 33))]
    pairs = [(getattr(exported(**inputs), output), getattr(model(**inputs), output)) for inputs in batches]
    off = torch.cat([(ours - theirs).flatten().abs() for ours, theirs in pairs])
    if not off.isfinite().all():  # max() ignores NaN
        raise BenchError(
            f"{path.name}: its output ({output}) or torch's is NaN or infinite, so it is not the model."
        )
    return float(off.max())


def inputs_of(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the names of the graph's inputs: those of the tokenizer."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return [name for name in names if name in tokenizer.model_input_names]


def write_int8(path: Path, target: Path) -> None:
    """Write the graph of `path` with the weights of its matrix products in int8 and dynamically quantised inputs.

    Each channel has its scale, and weights use 7 bits: with 8, processors without VNNI overflow. Tables, codes and
    positions do not change.
    """
    from google.protobuf.message import DecodeError
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        with quietly():
            quantize_dynamic(
                path,
                target,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=["MatMul", "Gemm"],
            )
    except (
        DecodeError
    ) as error:  # of a copy that onnxruntime writes beside the graph, and whose end did not fit
        raise EnvironmentBroken(
            f"{target.parent}: onnxruntime's copy of the graph there is not whole, as on a full disk: free some space, or set --to "
            "to another folder."
        ) from error
