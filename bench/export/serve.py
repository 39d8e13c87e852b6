"""An example server of an exported model: `EXPORT=<folder> uvicorn bench.export.serve:app`.

It needs Starlette, tokenizers and onnxruntime, and no torch. POST /classify {"texts": ["a fine film"]} returns a label and
probabilities for each text.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tokenizers import Tokenizer

MOST_TEXTS, MOST_TOKENS = 32, 128  # of one request


class Classifier:
    """The export's ONNX file, preferably the int8 one, with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        files = [folder / name for name in ("model-int8.onnx", "model.onnx") if (folder / name).is_file()]
        config = json.loads((folder / "config.json").read_text()) if files else {}
        if "id2label" not in config:
            what = "an encoder without a task" if files else "no folder with model.onnx"
            raise SystemExit(
                f"EXPORT ({folder}) is {what}: write one with `bench export <run id> --onnx --to <folder>`."
            )
        self.session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MOST_TOKENS)
        self.tokenizer.enable_padding(pad_id=config["pad_token_id"])
        self.labels = config["id2label"]

    def __call__(self, texts: list[str]) -> list[dict[str, object]]:
        encoded = self.tokenizer.encode_batch(texts)
        values = {
            "input_ids": [text.ids for text in encoded],
            "attention_mask": [text.attention_mask for text in encoded],
            "token_type_ids": [text.type_ids for text in encoded],
        }
        names = [graph_input.name for graph_input in self.session.get_inputs()]
        inputs = {name: np.array(values[name], dtype=np.int64) for name in names}
        (logits,) = self.session.run(["logits"], inputs)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return [{"label": self.labels[str(row.argmax())], "probabilities": row.tolist()} for row in shares]


def create(folder: Path) -> Starlette:
    """Return the application; the model is loaded once, before the first request."""
    classify = Classifier(folder)

    async def answer(request: Request) -> JSONResponse:
        try:
            texts = (await request.json())["texts"]
        except (ValueError, KeyError, TypeError) as error:
            raise HTTPException(400, 'send {"texts": ["..."]}') from error
        if not (
            isinstance(texts, list)
            and 0 < len(texts) <= MOST_TEXTS
            and all(isinstance(text, str) and text == text.encode(errors="ignore").decode() for text in texts)
        ):
            raise HTTPException(400, f"texts must be a list of 1 to {MOST_TEXTS} strings of Unicode text")
        # The event loop answers other requests while a thread computes.
        return JSONResponse(await run_in_threadpool(classify, texts))

    return Starlette(routes=[Route("/classify", answer, methods=["POST"])])


def __getattr__(name: str) -> Starlette:
    """Return `app` for uvicorn, from the folder that EXPORT names."""
    if name != "app":
        raise AttributeError(name)
    if "EXPORT" not in os.environ:
        raise SystemExit(
            "EXPORT is not set: set it to the folder of `bench export <run id> --onnx --to <folder>`."
        )
    return create(Path(os.environ["EXPORT"]))
