"""Kills and stops random processes of fake runs, and checks that nothing is lost: a part of `make chaos`.

The same options, files and exit codes as `python -m tests.chaos`, which does it to real runs.
"""

import sys
from pathlib import Path

from tests.chaos.__main__ import main
from tests.chaos.fakes.bench import FakeBench

if __name__ == "__main__":
    sys.exit(main(FakeBench, folder=Path("runs/chaos/fakes"), kills=26, stops=9))
