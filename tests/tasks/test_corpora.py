"""Corpora: files, folders and splits as one stream, drawn by language; what their digests are; what is refused, and how."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import brentq

from bench.errors import ConfigError, DataError
from bench.export.source import configuration
from bench.models.swap import texts_of
from bench.runs.execute import run
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.settings.schema import RunConfig
from bench.store import lines_sha256
from bench.tasks import corpora
from bench.tasks.corpora import identity, passages, quotas


@pytest.fixture
def ask(tmp_path: Path):
    """Return a function that makes a configuration whose cache and data lie below `tmp_path`."""

    def config(*overrides: str) -> RunConfig:
        return compose_config([f"cache_dir={tmp_path}/cache", f"data.root={tmp_path}/data", *overrides])

    return config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with text in German (plain), Swahili (packed) and no named language, and other files."""
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "de.txt").write_text("\n".join(f"Satz {i}" for i in range(400)), encoding="utf-8-sig")
    pack(texts / "sw.txt.zst", "".join(f"sentensi {i}\n\n" for i in range(40)).encode())
    (texts / "notes.txt").write_text("a note\n")
    (texts / "README.md").write_text("no passage\n")
    (texts / "more").mkdir()
    return texts


def pack(path: Path, content: bytes) -> None:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(content)


def test_a_folder_is_its_text_files_and_languages_take_turns(folder: Path, ask) -> None:
    read = passages(str(folder), ask())
    assert list(read)[:5] == ["Satz 0", "a note", "sentensi 0", "Satz 1", "sentensi 1"]
    assert len(read) == 441 and read[-1] == "Satz 399" and read[1:3] == ["a note", "sentensi 0"]
    assert read.languages == {"de": 400, "sw": 40, "": 1}
    listed = passages(f"[{folder}/de.txt, {folder}/sw.txt.zst,{folder}/notes.txt]", ask())
    joined = passages(f"{folder}/de.txt+{folder}/sw.txt.zst+{folder}/notes.txt", ask())
    assert sorted(listed) == sorted(joined) == sorted(read)


def test_the_digest_is_that_of_the_passages_whatever_file_they_lie_in(tmp_path: Path, ask) -> None:
    content = "one\n\n  two \x0bthree\u2028two\r\n"
    (tmp_path / "a+b:c.txt").write_bytes(content.encode())
    pack(tmp_path / "packed.txt.zst", content.encode())
    digest = hashlib.sha256(b"one\ntwo\nthree\ntwo").hexdigest()  # as it was before corpora had parts
    for name in ("a+b:c.txt", "packed.txt.zst"):
        texts = passages(f"{tmp_path}/{name}", ask())
        assert list(texts) == ["one", "two", "three", "two"]
        assert identity(f"{tmp_path}/{name}", ask()) == digest
        assert lines_sha256(texts) == lines_sha256(list(texts)) == digest
        texts.sha256 = "carried"
        assert lines_sha256(texts) == "carried"


def test_where_texts_are_joined_each_passage_comes_once(tmp_path: Path, ask) -> None:
    (tmp_path / "a.txt").write_text("x\ny\nx\n")
    (tmp_path / "b.txt").write_text("z\ny\n")
    assert list(passages(f"{tmp_path}/a.txt+{tmp_path}/b.txt", ask())) == ["x", "y", "z"]


def test_a_changed_file_is_read_again_and_a_damaged_cache_is_made_again(tmp_path: Path, ask) -> None:
    text = tmp_path / "a.txt"
    text.write_text("old\n")
    assert list(passages(str(text), ask())) == ["old"]
    (kept,) = (tmp_path / "cache/corpora").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    assert list(passages(str(text), ask())) == ["old"]
    text.write_text("new\n")
    os.utime(text, ns=(1, 1))
    assert list(passages(str(text), ask())) == ["new"]


def test_a_slice_of_a_split_is_text_of_its_own(ask) -> None:
    """So nothing needs to be read of the rows on which a setting is chosen."""
    most, rest, both = (f"lexical_sentiment:train{part}" for part in ("[:90%]", "[90%:]", ""))
    chosen, kept, every = (list(passages(corpus, ask())) for corpus in (most, rest, both))
    assert chosen == every[: len(chosen)] and kept == every[-len(kept) :] and len(chosen) > 5 * len(kept) > 0
    assert len({identity(corpus, ask()) for corpus in (most, rest, both)}) == 3


def test_splits_of_the_hub_at_one_revision_are_texts_of_their_own(ask, monkeypatch) -> None:
    monkeypatch.setattr(corpora, "data_identity", lambda *_: "hub:0123abc")
    names = ["mrpc:train", "mrpc:validation", "rte:train", "mrpc:train+rte:train", "mrpc:train[:90%]"]
    assert len({identity(name, ask()) for name in names}) == len(names)
    monkeypatch.setattr(corpora, "data_identity", lambda task, *_: "f" * 64)
    assert identity("mrpc:train", ask()) == identity("rte:train", ask()), "files count by their bytes"


def test_a_split_is_read_in_all_languages_of_its_task(tmp_path: Path, ask) -> None:
    def write(language: str) -> None:
        path = tmp_path / f"data/xnli/{language}/validation.parquet"
        path.parent.mkdir(parents=True)
        rows = {"premise": [f"{language} {i // 3}" for i in range(6)], "label": [0] * 6}
        pq.write_table(pa.table(rows | {"hypothesis": [f"{language}, {i}" for i in range(6)]}), path)

    write("en")
    write("sw")
    two = "sampling.languages=[sw,en]"
    read = passages("xnli:validation", ask(two))
    assert read[:4] == ["en 0", "sw 0", "en 1", "sw 1"] and read.languages == {"en": 8, "sw": 8}
    with pytest.raises(DataError, match="xnli/ar/validation.parquet is missing .* nothing of ar is there"):
        identity("xnli:validation", ask())
    (tmp_path / "sw.txt").write_text("sw 0\nsentensi\n")
    assert passages(f"xnli:validation+{tmp_path}/sw.txt", ask(two)).languages == {"en": 8, "sw": 9}


def test_languages_are_drawn_by_the_exponent(folder: Path, ask) -> None:
    def drawn(*sampling: str) -> list[str]:
        return list(passages(str(folder), ask(*sampling)))

    config = ["sampling.languages=[de,sw]", "sampling.passages=50"]
    flat = drawn(*config, "sampling.exponent=0.3")
    # 400^0.3 : 40^0.3 = 6.03 : 3.02
    assert Counter(text.split()[0] for text in flat) == {"Satz": 33, "sentensi": 17}
    assert len(set(flat)) == 50 and flat[:50] != sorted(flat)
    assert Counter(text.split()[0] for text in drawn(*config)) == {"Satz": 45, "sentensi": 5}
    assert drawn(*config, "sampling.exponent=0.3") == flat
    assert drawn(*config, "sampling.exponent=0.3", "sampling.seed=1") != flat
    assert len(drawn("sampling.passages=9999")) == 441


@pytest.mark.parametrize(("total", "exponent"), [(100, 0.3), (900, 0.3), (900, 0.0), (1500, 0.7), (3, 1.0)])
def test_a_language_that_has_too_few_gives_all_and_the_others_share_the_rest(
    total: int, exponent: float
) -> None:
    sizes = np.array([1000, 20, 0, 300])
    given = quotas(sizes, total, exponent)
    assert given.sum() == min(total, 1320) and (given <= sizes).all()

    # The reference finds the common factor of all shares by its sum.
    def wanted(factor: float) -> np.ndarray:
        return np.minimum(sizes, factor * sizes.astype(float) ** exponent)

    factor = 1e6 if total > 1320 else brentq(lambda factor: wanted(factor).sum() - total, 0, 1e6)
    assert (np.abs(given - wanted(factor)) < 1).all()


@pytest.mark.parametrize(
    ("corpus", "sampling", "error", "words"),
    [
        ("none.txt", [], DataError, "none.txt: .*No such file.*; give UTF-8 text"),
        ("texts+none", [], DataError, "none: .*No such file"),
        ("texts/more", [], DataError, "more has no file that ends in .txt or .txt.zst"),
        ("texts+", [], DataError, "names nothing in one of its parts"),
        ("mrcp:train", [], DataError, "mrcp:train cannot be read: Unknown task 'mrcp'. Did you mean 'mrpc'?"),
        ("empty.txt", [], DataError, "is empty: give text"),
        ("latin.txt", [], DataError, "latin.txt: 'utf-8' codec can't decode"),
        ("cut.txt.zst", [], DataError, "cut.txt.zst: Truncated"),
        ("plain.txt.zst", [], DataError, "plain.txt.zst: "),
        ("texts", ["sampling.languages=[de,fr,sw,th]"], DataError, "has no text in fr, th: add a file such as fr.txt"),
        ("texts", ["sampling.languages=[fr]"], DataError, "has no text in fr:"),
        ("texts", ["sampling.languages=[dee]"], ConfigError, "language 'dee'. Did you mean 'de'?.* ar, bg,"),
        ("texts", ["sampling.exponent=0.3"], ConfigError, r"exponent \(0.3\) needs sampling.passages"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_line(
    corpus: str, sampling: list[str], error: type, words: str, folder: Path, tmp_path: Path, ask, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n")
    Path("latin.txt").write_bytes("schön\n".encode("latin-1"))
    Path("plain.txt.zst").write_text("not packed\n")
    pack(Path("cut.txt.zst"), os.urandom(9000).hex().encode())
    Path("cut.txt.zst").write_bytes(Path("cut.txt.zst").read_bytes()[:5000])
    with pytest.raises(error, match=words) as refused:
        identity(corpus, ask(*sampling), "recovery.corpus")
    assert "\n" not in str(refused.value)
    if error is DataError:
        assert str(refused.value).startswith(f"recovery.corpus ({corpus})")


def test_sampling_is_part_of_an_identity_where_a_corpus_is_drawn(folder: Path, tiny: list[str]) -> None:
    def asked(*overrides: str) -> dict:
        return prepare(compose_config([*tiny, "recovery=distil", *overrides])).canonical

    drawn = ["sampling.passages=20", "sampling.exponent=0.3"]
    assert asked(*drawn) == asked()  # the corpus "task" is read as it is
    whole, part = asked(f"recovery.corpus={folder}"), asked(f"recovery.corpus={folder}", *drawn)
    assert "sampling" not in whole and part["sampling"]["passages"] == 20
    assert whole["recovery"]["corpus"] != part["recovery"]["corpus"]


def test_a_run_recovers_counts_and_assigns_on_a_drawn_text(folder: Path, tiny: list[str]) -> None:
    overrides = [
        *tiny,
        "assignment=contextual",
        "assignment.frequency_power=0.5",
        "embedding.subspaces=3",
        f"assignment.corpus={folder}",
        "recovery=distil",
        "recovery.steps=2",
        "recovery.batch_size=4",
        f"recovery.corpus={folder}",
        "sampling.passages=60",
        "sampling.exponent=0.3",
    ]
    record = run(compose_config(overrides))
    assert record["status"] == "ok", record["error"]
    assert record["recovery"]["texts"] == 60 and record["config"]["sampling"]["exponent"] == 0.3
    drawn = passages(str(folder), compose_config(overrides)).languages
    assert record["recovery"]["languages"] == {name: count for name, count in drawn.items() if name}
    assert record["config"]["recovery"]["corpus"] == record["config"]["assignment"]["corpus"]
    again = configuration(record, [*tiny, f"assignment.corpus={folder}", f"recovery.corpus={folder}"])
    assert prepare(again).run_id == record["run_id"]


def test_a_language_of_the_task_without_text_is_named(folder: Path, ask, caplog) -> None:
    texts_of(str(folder), ask("task=xnli", "task.languages=[de,en,fr]"), None)()
    assert "no text that is named as en, fr, languages of the task xnli" in caplog.text
    caplog.clear()
    texts_of(str(folder), ask("task=xnli", "task.languages=[de,sw]"), None)()
    texts_of(f"{folder}/notes.txt", ask("task=xnli"), None)()
    assert "no text" not in caplog.text


def test_an_empty_file_of_a_language_is_told(folder: Path, ask, caplog) -> None:
    (folder / "fr.txt").write_text("\n")
    passages(str(folder), ask())
    assert f"corpus ({folder}): the text in fr is empty" in caplog.text
    with pytest.raises(DataError, match="has no text in fr: add a file such as fr.txt"):
        passages(str(folder), ask("sampling.languages=[fr]"))


def test_fourteen_languages_are_drawn_from_the_shared_corpus(ask) -> None:
    data = Path(os.environ.get("BENCH_DATA_ROOT", Path(__file__).parents[3] / "shared" / "data"))
    languages = data.parent / "corpus" / "multilingual"
    if not languages.is_dir():
        pytest.skip("no multilingual corpus beside the data: set BENCH_DATA_ROOT")
    only = ["sampling.languages=[sw,ur]", "sampling.passages=2000", "sampling.exponent=0.3"]
    read = passages(str(languages), ask(*only))
    sizes = np.array([11920, 9282]) ** 0.3  # passages, counted apart
    assert [read.languages["sw"], read.languages["ur"]] == list(np.round(2000 * sizes / sizes.sum()))
