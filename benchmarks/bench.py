"""Measures the project's speed as ratios, each against its baseline in the same run: `make bench`.

    python benchmarks/bench.py [--only 1,2,...] [--config quickstart] [--repeats 5] [--json FILE] [key=value ...]

docs/benchmarks.md says what each number is. Other work on the machine slows both sides of a ratio, but not always
equally: measure on an idle machine, and look at the spread.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, ROOT)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))  # for Ray's workers

from agile_ray.config import Cluster  # noqa: E402  after the path
from agile_ray.errors import AgileError  # noqa: E402  after the path
from benchmarks import learn, many_lanes, overlap, play  # noqa: E402
from benchmarks.ratios import LeftOut, Ratio, table, write  # noqa: E402
from launch.border import border  # noqa: E402
from launch.cluster import allocator  # noqa: E402

Measure = Callable[..., list[Ratio]]

GROUPS: tuple[tuple[Measure, tuple[int, ...]], ...] = (
    (learn.measure, (2, 3)),
    (play.measure, (1, 5, 7, 8, 9)),
    (overlap.measure, (6,)),
    (many_lanes.measure, (10,)),
)
"""What measures numbers together, and which. Learning comes first: it imports torch with settings of its own."""
NUMBERS = sorted(number for _, numbers in GROUPS for number in numbers)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the config to set")
    parser.add_argument("--only", type=chosen, default=NUMBERS, help=f"numbers, with commas between; of {NUMBERS}")
    parser.add_argument("--config", default="quickstart", help="shipped config or YAML file; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement; default: %(default)s")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    return parser.parse_args()


def chosen(text: str) -> list[int]:
    """Numbers from `1,2`.

    Raises:
        argparse.ArgumentTypeError: one of them is not measured here.
    """
    numbers = [int(word) for word in text.split(",") if word.strip().isdigit()]
    if not numbers or len(numbers) < len(text.split(",")) or not {*numbers} <= {*NUMBERS}:
        raise argparse.ArgumentTypeError(f"must be numbers of {NUMBERS} with commas between, found {text!r}")
    return sorted({*numbers})


def main() -> int:
    """Measure; returns 1 if a ratio could not be measured. One that misses its aim is marked in the table."""
    given = arguments()
    allocator.begin_anew(Cluster())  # bare PyTorch runs here, beside actors that have it
    ratios, left_out = list[Ratio](), list[LeftOut]()
    for measure, group in GROUPS:
        numbers = [number for number in group if number in given.only]
        if not numbers:
            continue
        try:
            ratios += measure(numbers, given.config, given.overrides, repeats=given.repeats)
        except AgileError as error:
            left_out += [LeftOut(number=number, why=str(error)) for number in numbers]
    print(table(ratios, left_out))
    if given.json:
        settings = {"config": given.config, "overrides": " ".join(given.overrides)}
        write(given.json, ratios, left_out, settings=settings)
    return 1 if left_out else 0


if __name__ == "__main__":
    with border():
        sys.exit(main())
