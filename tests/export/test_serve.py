"""The example of a server: an exported model answers on loopback, several clients at once, as torch does."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import bench
from bench.cli.main import main
from tests.support.commands import wait_for

pytest.importorskip("onnxscript")
uvicorn = pytest.importorskip("uvicorn")
TEXTS = ["a fine film", "dreadful", "not bad at all, and rather longer than the others"]


@pytest.fixture
def server(tiny, tmp_path) -> Iterator[str]:
    """Return the address of the example, with a tiny model that was exported to tmp_path/out."""
    from bench.export.serve import create

    assert (
        main(
            [
                "export",
                *tiny,
                "embedding=subspace",
                "assignment=sequential",
                "--onnx",
                "--to",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    running = uvicorn.Server(
        uvicorn.Config(create(tmp_path / "out"), host="127.0.0.1", port=0, log_level="error")
    )
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        wait_for(lambda: running.started, what="the server did not start")
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/classify"
    finally:
        running.should_exit = True
        thread.join()


def ask(address: str, content: object) -> list[dict[str, object]]:
    request = urllib.request.Request(
        address, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, object]] = json.load(answer)
        return found


def test_many_requests_at_once_get_the_answers_of_torch_and_wrong_ones_a_reason(server, tmp_path: Path):
    model, tokenizer = (
        bench.load_compressed(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    with torch.no_grad():
        expected = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.softmax(-1)
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: ask(server, {"texts": TEXTS}), range(40)))
    for answer in answers:
        torch.testing.assert_close(
            torch.tensor([one["probabilities"] for one in answer]), expected, rtol=1e-4, atol=1e-5
        )
        assert [one["label"] for one in answer] == [
            model.config.id2label[int(row.argmax())] for row in expected
        ]
    for wrong in (
        {"texts": []},
        {"texts": ["\ud800"]},
        {"texts": ["x"] * 33},
        {"texts": [1]},
        {"text": "x"},
        [1],
    ):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(server, wrong)


def test_a_folder_that_cannot_be_served_is_told_with_the_command_that_writes_one(tmp_path: Path, monkeypatch):
    from bench.export import serve

    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/model.onnx").write_bytes(b"x")
    (tmp_path / "encoder/config.json").write_text("{}")
    for folder, what in (("nowhere", "no folder with model.onnx"), ("encoder", "an encoder without a task")):
        monkeypatch.setenv("EXPORT", str(tmp_path / folder))
        with pytest.raises(SystemExit, match=rf"EXPORT \(.*{folder}\) is {what}: .*--onnx --to"):
            serve.app  # noqa: B018
    monkeypatch.delenv("EXPORT")
    with pytest.raises(SystemExit, match="EXPORT is not set"):
        serve.app  # noqa: B018
