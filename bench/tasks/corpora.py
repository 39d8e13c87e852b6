"""Text without labels, named in a line: "task", or splits of tasks, files and folders joined by "+"."""

import hashlib
import io
import json
import logging
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress, islice, zip_longest
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa

from bench import store
from bench.errors import ConfigError, DataError, unknown
from bench.settings.schema import RunConfig, SamplingConfig, TaskConfig
from bench.tasks.data import data_identity, load_split
from bench.tasks.specs import languages_of_tasks, read_task

VERSION = 1  # raised whenever a change here changes the passages of a corpus
BATCH = 4096  # passages that are written and read at once
ENDINGS = (".txt", ".txt.zst", ".parquet")  # of the files that a folder stands for
UNNAMED = ""  # the language of a text whose name tells none
SCHEMA = pa.schema([("text", pa.string())])
log = logging.getLogger("bench")


class Passages(Sequence[str]):
    """The passages of a corpus, read from a memory-mapped file: memory holds no more of them than is looked at."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        *batches, (_, facts) = map(reader.get_batch_with_custom_metadata, range(reader.num_record_batches))
        self._column = pa.Table.from_batches([batch for batch, _ in batches], SCHEMA)["text"]
        self.sha256: str = facts[b"sha256"].decode()  # of the passages joined by line feeds
        # language -> passages; UNNAMED: of no named language
        self.languages: dict[str, int] = json.loads(facts[b"languages"])

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        found = self._column[place]
        return cast(str | list[str], found.to_pylist() if isinstance(place, slice) else found.as_py())

    def __iter__(self) -> Iterator[str]:
        for chunk in self._column.chunks:
            yield from chunk.to_pylist()


@dataclass(frozen=True)
class _Part:
    """A file, or a split of a task in one language."""

    language: str
    state: list[str]  # its name, and what differs whenever the texts differ
    read: Callable[[], Iterator[str]]
    is_split: bool


def passages(corpus: str, config: RunConfig, key: str = "corpus") -> Passages:
    """Return the passages of the splits, files and folders, drawn as `config.sampling` says.

    Each passage comes once, but those of a file that is named alone come as often as it has them. Languages take turns, so
    that the first passages are of all of them; within a language, and where none is named, the order is that of the text.
    They are kept in `cache_dir/corpora`. Errors begin with `key`. Raises DataError for text that is missing, unreadable or
    empty, and for text without an asked language. Raises ConfigError for a language that no task has.
    """
    parts = _parts(corpus, config, key)
    once = not Path(corpus).is_file()
    states = [[part.language, part.state] for part in parts]
    name = store.key(VERSION, states, once, asdict(config.sampling))
    path = Path(config.cache_dir) / "corpora" / f"{name}.arrow"
    if (kept := store.read_cached(path, Passages)) is not None:
        return kept

    # Choose in one pass, and write in another: no pass holds the text.
    chosen = _chosen(parts, config.sampling, once, f"{key} ({corpus})")
    with store.atomic(path) as temporary:
        _write(compress(_in_turns(parts), chosen.tobytes()), temporary)
    drawn = Passages(path)
    amounts = ", ".join(
        f"{name or 'language not named'} {n:,}" for name, n in sorted(drawn.languages.items())
    )
    log.info("%s (%s) | %s passages: %s", key, corpus, f"{len(drawn):,}", amounts)
    return drawn


def identity(corpus: str, config: RunConfig, key: str = "corpus") -> str:
    """Return "task", the SHA-256 of the data that splits are read from, or that of the passages joined by line feeds.

    Raises what `passages` raises.
    """
    if corpus == "task":
        return corpus
    parts = _parts(corpus, config, key)
    if all(part.is_split for part in parts) and config.sampling == SamplingConfig():
        # The digest of a split's files says nothing of a slice, and the hub's revision nothing of the split.
        named = [
            part.state if "[" in part.state[0] or part.state[1].startswith("hub:") else part.state[1:]
            for part in parts
        ]
        return store.sha256("\n".join(" ".join(state) for state in named))
    return passages(corpus, config, key).sha256


def _parts(corpus: str, config: RunConfig, key: str) -> list[_Part]:
    """Return the files and splits that the line names; a path that exists wins over a line of several parts."""
    # Check how they are drawn.
    sampling, named = config.sampling, f"{key} ({corpus})"
    for language in sampling.languages:
        if language not in languages_of_tasks():
            raise ConfigError(f"sampling.languages: {unknown('language', language, languages_of_tasks())}")
    if sampling.exponent != 1 and sampling.passages is None:
        raise ConfigError(
            f"sampling.exponent ({sampling.exponent}) needs sampling.passages: say how many passages to draw."
        )

    # Cut the line, and find what each piece names.
    pieces = [corpus]
    if not Path(corpus).exists():
        listed = re.fullmatch(r"\[(.*)\]", corpus)  # as Hydra writes a list
        pieces = re.split(r",\s*", listed[1]) if listed else corpus.split("+")
    if not all(pieces):
        raise DataError(
            f"{named} names nothing in one of its parts: leave the part out, or name a text in it."
        )
    parts = []
    for piece in pieces:
        if split := re.fullmatch(r"(\w+):([\w\[\]%:]+)", piece):
            try:
                parts += _splits(read_task(split[1]), split[2], piece, config)
            except DataError as error:
                raise DataError(f"{named}: {piece} cannot be read: {error}") from error
        else:
            parts += [_file(path, named) for path in _files(piece, named)]

    # Leave out what other languages name.
    if sampling.languages:
        parts = [part for part in parts if part.language in sampling.languages]
    if not parts:
        raise _lacking(named, sampling.languages)
    return parts


def _splits(task: TaskConfig, split: str, piece: str, config: RunConfig) -> list[_Part]:
    """Return the split of a task: in each of its languages that are asked for, if it has several."""
    task = replace(task, splits={"train": split}, evaluate=["train"], predict=[])
    asked = config.sampling.languages or task.languages

    def part(language: str | None) -> _Part:
        def read() -> Iterator[str]:
            rows = load_split(task, config.data, "train", language, labels=False)
            return (text for column in task.columns for text in rows[column])

        one = replace(task, languages=[language] if language else [])
        state = [piece, data_identity(one, config.data, ["train"])]
        return _Part(language or UNNAMED, state, read, is_split=True)

    if not task.languages:
        return [part(None)]
    return [part(language) for language in task.languages if language in asked]


def _files(name: str, named: str) -> list[Path]:
    """Return the file, or the text files that lie in the folder, by name."""
    path = Path(name)
    if not path.is_dir():
        return [path]
    if found := sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS) and file.is_file()):
        return found
    raise DataError(f"{named}: the folder {path} has no file that ends in {' or '.join(ENDINGS)}: add one.")


def _file(path: Path, named: str) -> _Part:
    """Return the file as a part; its language is its name up to the first dot, if that is a task's language."""
    stem = path.name.partition(".")[0]
    language = stem if stem in languages_of_tasks() else UNNAMED

    def refused(error: Exception) -> DataError:
        return DataError(
            f"{named} cannot be read: {path}: {error}; give UTF-8 text files with one passage a line, plain or .zst, parquet files "
            "with a column 'text', folders of such files, splits of tasks such as mrpc:train+rte:train, or task."
        )

    def lines() -> Iterator[str]:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq  # only such files need it

            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, columns=["text"]):
                    yield from filter(None, batch["text"].to_pylist())
            return
        with (
            pa.input_stream(str(path), compression="detect") as stream,
            io.TextIOWrapper(stream, encoding="utf-8-sig") as file,
        ):
            yield from file

    def read() -> Iterator[str]:
        try:
            for line in lines():
                yield from filter(None, map(str.strip, line.splitlines()))
        except (
            OSError,
            ValueError,
            KeyError,
        ) as error:  # UnicodeDecodeError and pyarrow's errors are ValueErrors
            raise refused(error) from error

    try:
        stat = path.stat()
    except OSError as error:
        raise refused(error) from error
    state = [str(path.resolve()), f"{stat.st_size} {stat.st_mtime_ns}"]
    return _Part(language, state, read, is_split=False)


def _in_turns(parts: Sequence[_Part]) -> Iterator[tuple[str, str]]:
    """Yield (language, passage): one of each language in turn, until the last one ends."""
    languages = dict.fromkeys(part.language for part in parts)

    def spoken(language: str) -> Iterator[tuple[str, str]]:
        return ((language, text) for part in parts if part.language == language for text in part.read())

    for turn in zip_longest(*map(spoken, languages)):
        yield from (passage for passage in turn if passage)


def _chosen(parts: Sequence[_Part], sampling: SamplingConfig, once: bool, named: str) -> np.ndarray:
    """Return whether each passage of `_in_turns` is drawn, (N,) bool. Raises DataError where there is none to draw."""
    # Read all passages. A hash of 8 bytes stands for each: among a million two coincide with a probability of 3e-8.
    hashes, spoken = array("Q"), array("H")
    places = {language: place for place, language in enumerate(dict.fromkeys(p.language for p in parts))}
    for language, text in _in_turns(parts):
        hashes.frombytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        spoken.append(places[language])
    owners = np.frombuffer(spoken, np.uint16)
    available = np.ones(len(owners), bool)
    if once:
        available[:] = False
        available[np.unique(np.frombuffer(hashes, np.uint64), return_index=True)[1]] = True

    # Refuse a corpus without text, or without text in a language that is asked for.
    found = {language for language, place in places.items() if (owners == place).any()}
    if lacking := [language for language in sampling.languages if language not in found]:
        raise _lacking(named, lacking)
    if not found:
        raise DataError(f"{named} is empty: give text with one passage a line.")
    if empty := [language for language in places if language not in found]:
        log.warning("%s: the text in %s is empty", named, ", ".join(empty))
    if sampling.passages is None:
        return available

    # Draw from each language what it is to give.
    draw, chosen = np.random.default_rng(sampling.seed), np.zeros(len(owners), bool)
    members = [np.flatnonzero(available & (owners == place)) for place in places.values()]
    given = quotas(np.array([len(member) for member in members]), sampling.passages, sampling.exponent)
    for member, number in zip(members, given, strict=True):
        chosen[draw.choice(member, number, replace=False)] = True
    return chosen


def _lacking(named: str, languages: Sequence[str]) -> DataError:
    return DataError(
        f"{named} has no text in {', '.join(languages)}: add a file such as {languages[0]}.txt, or change sampling.languages."
    )


def quotas(sizes: np.ndarray, total: int, exponent: float) -> np.ndarray:
    """Return how many of its passages each language gives, (languages,) int64, `total` in sum if there are as many.

    Shares are proportional to size^exponent (Conneau et al., ACL 2020, section 3.1). A language that has fewer gives all,
    and the others share the rest.
    """
    # Close the languages that give all, until the shares of the others fit.
    wanted, shares, full = sizes.astype(float), sizes.astype(float) ** exponent, sizes == 0
    while not full.all():
        rest = total - sizes[full].sum()
        wanted = np.where(full, sizes, rest * shares / shares[~full].sum())
        if not (over := ~full & (wanted > sizes)).any():
            break
        full |= over
    wanted = np.minimum(wanted, sizes)

    # Round down, then give the largest remainders one more.
    rounded = np.floor(wanted).astype(np.int64)
    missing = min(total, int(sizes.sum())) - int(rounded.sum())
    rounded[np.argsort(rounded - wanted, kind="stable")[:missing]] += 1
    return cast(np.ndarray, rounded)


def _write(stream: Iterator[tuple[str, str]], path: Path) -> None:
    """Write the passages as an Arrow file; its last batch is empty and has what is known only at the end."""
    languages: Counter[str] = Counter()

    def texts() -> Iterator[str]:
        while batch := list(islice(stream, BATCH)):
            languages.update(language for language, _ in batch)
            column = [text for _, text in batch]
            writer.write_batch(pa.record_batch([pa.array(column, pa.string())], schema=SCHEMA))
            yield from column

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        facts: dict[str, Any] = {"sha256": store.lines_sha256(texts()), "languages": json.dumps(languages)}
        writer.write_batch(pa.record_batch([pa.array([], pa.string())], schema=SCHEMA), custom_metadata=facts)
