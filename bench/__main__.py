import gc
import sys

from bench.cli.main import main

gc.set_threshold(
    200_000
)  # imports make half a million objects and no garbage: to look through them at every 700th takes a sixth of their time

if __name__ == "__main__":  # worker processes import this file too
    sys.exit(main(sys.argv[1:]))
