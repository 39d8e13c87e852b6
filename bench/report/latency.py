"""Latency and memory of configurations in use, as `bench latency` measured them."""

from typing import Any, NamedTuple

import pandas as pd

from bench.report.runs import headline_runs, section_of
from bench.settings.schema import GateConfig
from bench.store import LatencyPart, ProfilePart, device_key
from bench.text import escape, markdown_table

MEASURED = ["latency_ms.small", "latency_ms.large", "memory_bytes"]
IN_REPORT = "Measured by `bench latency`, ratios within one measurement with a 95 % interval; all cells are in `latency/`.\n"
SHOWN = ["model file", "cold start (s)", "loading (s)", "before (MB)", "resident (MB)", "peak (MB)"]


class Device(NamedTuple):
    """Where `bench latency` measured, and the shapes that are shown: the smallest and largest batch of the longest rows."""

    name: str
    tokens: int | None  # of each row; None where nothing was measured
    small: int
    large: int

    @property
    def title(self) -> str:
        """Return the name as people write it."""
        return "CPU" if self.name == "cpu" else self.name


class InUse(NamedTuple):
    """Median times in ms for an answer to the small and the large batch, and memory in bytes; None where not measured."""

    small: float | None = None
    large: float | None = None
    resident: int | None = None
    peak: int | None = None


def devices(dense: dict[str, ProfilePart]) -> list[Device]:
    """Return where the dense model was measured, GPUs first."""
    found = []
    for name in sorted(dense, key=lambda name: (name == "cpu", name)):
        tokens = max(cell["tokens"] for cell in dense[name]["latency"])
        batches = [cell["batch"] for cell in dense[name]["latency"] if cell["tokens"] == tokens]
        found.append(Device(name, tokens, min(batches), max(batches)))
    return found


def on_device(profiles: dict[str, ProfilePart], dense: dict[str, ProfilePart], device: Device) -> InUse:
    """Return what was measured on a device. Latency is the dense model's median times the paired ratio to it.

    Ratios are taken within a round, so the drift of a shared machine cancels out.
    """
    if device.name not in profiles:
        return InUse()
    cells = {
        name: {
            cell["batch"]: cell for cell in side[device.name]["latency"] if cell["tokens"] == device.tokens
        }
        for name, side in (("ours", profiles), ("dense", dense))
    }
    small, large = (
        cells["dense"][batch]["p50_ms"] * (cells["ours"][batch]["ratio_to_dense"] or 1.0)
        if batch in cells["ours"]
        else None
        for batch in (device.small, device.large)
    )
    profile = profiles[device.name]
    return InUse(small, large, profile.get("resident_bytes"), profile["peak_bytes"])


def in_use(runs: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return where a section was measured in use, and config_id -> latency_ms.small, latency_ms.large, memory_bytes.

    `runs` are the section's headline runs. Where: `machine` in words (empty: nowhere), `device`, the `tokens` of each row,
    batch.small and batch.large: those of `bench latency`, on a GPU if it measured there, at the longest rows. What runs note beside
    their training is not shown: on busy machines it was off by a factor of four.
    """
    dense = runs[runs.kind == "dense"]
    if dense.profiles.isna().all():
        noted = next(iter(dense["provenance.device"].mode()), None)
        where = {"machine": "", "device": noted, "tokens": None, "batch.small": 1, "batch.large": 32}
        return where, pd.DataFrame(columns=MEASURED)
    profiles = dense.profiles.dropna().iloc[0]
    device, lines = devices(profiles)[0], dict[str, dict[str, Any]]()
    for config_id, ours in runs.dropna(subset=["profiles"]).groupby("config_id").profiles.first().items():
        used = on_device(ours, profiles, device)
        lines[str(config_id)] = dict(zip(MEASURED, (used.small, used.large, used.peak), strict=True))
    where = {"machine": f"{device.name} by bench latency", "device": device.name, "tokens": device.tokens}
    where |= {"batch.small": device.small, "batch.large": device.large}
    return where, pd.DataFrame.from_dict(lines, orient="index")


def slowest(runs: pd.DataFrame, batch: int, gate: GateConfig) -> tuple[float, str] | None:
    """Return the median latency in ms of a configuration's runs on its slowest device, and how it was measured.

    A measurement by `bench latency` comes before those that runs noted. None where neither has the batch, the device and the tokens
    of the gate.
    """
    # By `bench latency`: the longest rows on each device.
    measured: list[tuple[str, LatencyPart]] = []
    for device, profile in (pair for profiles in runs.profiles.dropna() for pair in profiles.items()):
        shapes = [cell for cell in profile["latency"] if cell["batch"] == batch]
        cells = [cell for cell in shapes if gate.tokens in (None, cell["tokens"])]
        if cells and gate.device in (None, device):
            measured.append((device, max(cells, key=lambda cell: cell["tokens"])))
    if measured:
        device, cell = max(measured, key=lambda pair: pair[1]["p50_ms"])
        shape = f"{batch} × {cell['tokens']} tokens, {cell['rounds']} rounds"
        return cell["p50_ms"], f"`bench latency` on {device}, {shape}; ratio to dense {ratio(cell)}"

    # Noted by the runs, on rows of no fixed length.
    key = f"cost.latency_ms.batch{batch}"
    if key not in runs or gate.tokens is not None:
        return None
    runs = runs.dropna(subset=["provenance.device"])
    runs = runs[runs["provenance.device"].map(device_key) == gate.device] if gate.device else runs
    times = runs[key].astype(float).groupby(runs["provenance.device"]).median().dropna()
    how = f"noted by the runs on {times.idxmax()}, without `bench latency`" if len(times) else ""
    return (float(times.max()), how) if how else None


def ratio(cell: LatencyPart) -> str:
    """Return "0.98 [0.95, 1.02]", or "1" for dense itself."""
    if cell["ratio_to_dense"] is None:
        return "1"
    return f"{cell['ratio_to_dense']:.3f} [{cell['ratio_low']:.3f}, {cell['ratio_high']:.3f}]"


def sizes(profile: ProfilePart) -> list[str]:
    """Return the cells of the columns SHOWN."""
    memory = [profile["before_bytes"], profile["resident_bytes"], profile["peak_bytes"]]
    return [
        f"{profile['file_bytes']:,}",
        f"{profile['cold_start_seconds']:.2f}",
        f"{profile['load_seconds']:.2f}",
        *("unknown" if value is None else f"{value / 1e6:,.0f}" for value in memory),
    ]


def side_by_side(part: pd.DataFrame, runs: pd.DataFrame, scores: dict[Any, str]) -> str:
    """Return a Markdown table of a section, a line per configuration and device; empty where `bench latency` measured nothing.

    `scores` are the configurations' main scores as text, by config_id.
    """
    profiled = headline_runs(section_of(runs, part)).dropna(subset=["profiles"])
    profiles = dict(zip(profiled.config_id, profiled.profiles, strict=True))
    lines = []
    for row in part[part.main].to_dict("records"):
        for device, profile in sorted((profiles.get(row["config_id"]) or {}).items()):
            ends = profile["latency"][0], profile["latency"][-1]
            times = [f"{c['tokens']} × {c['batch']}: {c['p50_ms']:.2f} ({ratio(c)})" for c in ends]
            score = escape(scores[row["config_id"]]) if row["n"] else "none"
            size, rate = f"{row['size.embedding_bytes']:,.0f}", f"{ends[1]['rows_per_second']:.1f}"
            names = escape(row["configuration"]), escape(device)
            lines.append([*names, score, size, *times, rate, *sizes(profile)])
    if not lines:
        return ""
    first = part[part.main].iloc[0]
    head = ["configuration", "device", f"{first.task}: {first.metric}", "stored bytes"]
    head += [
        f"{size} batch, tokens × rows: median ms (ratio to dense in a round)"
        for size in ("smallest", "largest")
    ]
    head += ["rows a second", *SHOWN]
    return f"#### Cost in use: {escape(first.title)}\n\n{IN_REPORT}\n{markdown_table(head, lines, len(head) - 2)}"
