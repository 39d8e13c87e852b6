import gc
import sys

from bench.cli.main import main

# Imports allocate half a million objects and no cycles; the default threshold (700) costs a sixth of their time.
gc.set_threshold(200_000)

if __name__ == "__main__":  # worker processes import this file, too
    sys.exit(main(sys.argv[1:]))
