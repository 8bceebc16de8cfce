"""`index.json` in a sweep's folder: every run, begun or not, and how it goes.

Example, shortened:
    {"sweep": "prices", "parallel": 2, "runs": [{"run": "seed-0_advice_cost-0.1", "state": "running",
     "overrides": {"seed": "0", "env.advice_cost": "0.1"}, "job": "job raysubmit_x1", "starts": 1, "imitation": "",
     "error": ""}]}
"""

from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from agile_ray.record.folder import SweepFolder
from agile_ray.record.json_files import parse_json, write_json

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedRun:
    """One run."""

    run: str
    state: str  # waiting, running, finished, stopped or failed
    overrides: dict[str, str]
    job: str = ""  # the process or the job that trains it now
    starts: int = 0  # by the sweep's present process
    imitation: str = ""  # the run that trained its imitation; "": itself
    error: str = ""  # why it failed, or ended last


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Content of the file."""

    schema: int = SCHEMA
    sweep: str
    parallel: int
    updated: str  # UTC, ISO 8601
    runs: tuple[IndexedRun, ...]


_CONTENT = TypeAdapter(Index)


def write(folder: SweepFolder, index: Index) -> None:
    """Write the index of a sweep, whole."""
    write_json(folder.index, asdict(index))


def read(folder: SweepFolder) -> Index | None:
    """The index of a sweep; None if there is none.

    Raises:
        ConfigError: the file is not one of this version.
    """
    return parse(folder.index.read_bytes(), where=str(folder.index)) if folder.index.is_file() else None


def parse(content: bytes, *, where: str) -> Index:
    """The index in the content of the file `where`.

    Raises:
        ConfigError: it is not one of this version.
    """
    return parse_json(content, _CONTENT.validate_json, where=where, expected="the index of a sweep")
