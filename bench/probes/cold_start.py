"""A fresh process that loads a model written by `save_compressed` and answers; `bench.probes.latency` starts and times it.

`python -m bench.probes.cold_start FOLDER cpu|cuda DTYPE BATCH TOKENS` prints a line of JSON at the first answer (a row of 16
tokens), and another after an answer to BATCH rows of TOKENS tokens.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch

from bench.models.storage import load_compressed
from bench.runs.cost import STATUS, peak_memory_bytes
from bench.training.precision import autocast

FIRST = 16  # tokens of the first row


def resident_bytes(device: torch.device) -> int | None:
    """Return the bytes in use: allocated by torch on a GPU, resident in the process on a CPU (None except on Linux)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if not STATUS.exists():
        return None
    lines = STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@torch.inference_mode()
def main(folder: Path, device: torch.device, dtype: str, batch: int, tokens: int) -> None:
    """Print the two lines."""
    begun, before = time.perf_counter(), resident_bytes(device)
    model = cast(Any, load_compressed(folder)).to(device)

    def answer(rows: int, length: int) -> None:
        seeded = torch.Generator().manual_seed(0)
        ids = torch.randint(model.config.vocab_size, (rows, length), generator=seeded)
        with autocast(dtype, device):
            model(input_ids=ids.to(device), attention_mask=torch.ones_like(ids, device=device)).logits.cpu()

    answer(1, FIRST)
    seconds = time.perf_counter() - begun

    # A file's weights are mapped into memory page by page, of 4 KiB: read of each, as a service has after some time.
    for weight in (*model.parameters(), *model.buffers()):
        weight.flatten()[::512].sum()
    resident = resident_bytes(device)
    print(
        json.dumps({"load_seconds": seconds, "before_bytes": before, "resident_bytes": resident}), flush=True
    )
    answer(batch, tokens)
    print(json.dumps({"peak_bytes": peak_memory_bytes(device)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), torch.device(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
