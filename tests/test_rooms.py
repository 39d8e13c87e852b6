"""The rooms of the house: who may import whom, and what must stay out of the report."""

import ast
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench"

# From the ground up. A room imports from those below it, never from those above or from its neighbours in the same line.
FLOORS = [
    {"errors", "logs", "stopping", "text", "statistics"},
    {"settings"},
    {"store"},
    {"assignment", "tasks"},
    {"embeddings"},
    {"models"},
    {"training"},
    {"runs"},
    {"report"},
    {"probes"},
    {"sweep", "perf", "export", "fetch"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def _imported(file: Path) -> set[str]:
    """Return the rooms that a file imports from, wherever in the file the import stands."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "bench":
            modules |= {alias.name for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bench."):
            modules.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("bench.")}
    return modules


def _rooms() -> dict[str, set[str]]:
    """Return each room with those that it imports from."""
    imports: dict[str, set[str]] = {}
    for file in sorted(BENCH.rglob("*.py")):
        inside = file.relative_to(BENCH).parts
        room = inside[0].removesuffix(".py")
        imports.setdefault(room, set()).update(_imported(file) - {room})
    return imports


def test_every_room_has_a_floor() -> None:
    assert _rooms().keys() == FLOOR_OF.keys()


def test_imports_run_one_way_from_the_command_line_down_to_the_ground() -> None:
    upward = [
        f"{room} imports {other}"
        for room, others in _rooms().items()
        for other in sorted(others)
        if FLOOR_OF[other] >= FLOOR_OF[room] and room != "__init__"
    ]
    assert upward == []


def test_the_report_never_imports_torch() -> None:
    modules = [
        ".".join(file.relative_to(BENCH.parent).with_suffix("").parts)
        for file in (BENCH / "report").rglob("*.py")
    ]
    script = f"import importlib, sys; [importlib.import_module(m) for m in {modules!r}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=BENCH.parent).returncode == 0
