"""A record's sizes by the rule of counting of today: parameters, codes and frozen integers, bytes stored and in memory.

Parameters are the floating-point values that training changes, in whatever precision a file holds them. Codes, ids and the
frozen integers of int8 and int4 rows with their scales count as stored bits, never as parameters.
"""

from typing import Any

from bench.store import Record

SHORT = 2**15  # row numbers below it take two bytes in memory, others four


def sizes(record: Record) -> dict[str, Any]:
    """Return the record's size part with `memory_bytes`, `memory_saving` and `bits_per_entry`.

    Records from before the rule count the frozen integers of `quantised` as parameters: here they are code bits.
    """
    size: dict[str, Any] = dict(record["size"] or {})
    embedding, model = record["config"]["embedding"], record["model"]
    if not size:
        return size
    if embedding["name"] == "quantised" and size["embedding_params"]:
        size["total_params"] -= size["embedding_params"]
        size |= {"embedding_params": 0, "param_saving": 1.0, "code_bits": 8 * size["embedding_bytes"]}
    size["bits_per_entry"] = 8 * size["embedding_bytes"] / size["dense_embedding_params"]
    if model:
        assigned = record["config"].get("assignment") is not None
        memory = size.get("memory_bytes") or memory_bytes(embedding, model["vocab_size"], size, assigned)
        dense = size["dense_embedding_bytes"]  # in fp32, on disk as in memory
        size |= {"memory_bytes": memory, "memory_saving": 1 - memory / dense}
    return size


def memory_bytes(embedding: dict[str, Any], vocab_size: int, size: dict[str, Any], assigned: bool) -> int:
    """Return the bytes of the embedding's tensors in memory, for a record without them. `assigned` says whether tokens have codes.

    Trained values lie there in fp32. Codes are row numbers of 2 or 4 bytes, packed to the bit in the file alone. Kept rows and a
    trimmed table have a row number for each token (4 bytes) and the ids of their tokens (8 bytes).
    """
    if embedding["name"] == "quantised":
        return int(size["embedding_bytes"])
    shared, kept, rows = (embedding.get(key) or 0 for key in ("code_rows", "keep_dense", "rows"))
    integers = 0
    if assigned:
        pieces = embedding.get("subspaces") or 1
        integers += (shared or vocab_size) * pieces * _number_bytes(pieces * rows)
    if shared:
        integers += vocab_size * _number_bytes(shared)
    for count in (kept, rows if embedding["name"] == "trimmed" else 0):
        integers += 4 * vocab_size + 8 * count if count else 0
    if embedding["name"] == "truncated":
        integers += 8 * embedding["rank"]
    return 4 * int(size["embedding_params"]) + integers


def _number_bytes(rows: int) -> int:
    return 2 if rows < SHORT else 4
