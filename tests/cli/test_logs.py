"""What a command prints of other libraries' warnings."""

import subprocess
import sys

from tests.support.commands import ROOT

SCRIPT = """
import warnings
from bench.logs import set_up_logging
set_up_logging()
for module in ("torch._inductor.compile_fx", "torch.nn.functional"):
    warnings.warn_explicit(f"a word of {module}", UserWarning, "file.py", 1, module=module)
"""


def test_the_compilers_advice_on_speed_is_not_shown_and_other_warnings_are():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "a word of torch.nn.functional" in done.stderr and "_inductor" not in done.stderr
