"""The runs that a viewer shows, and their sessions as tables, which are read when they are first asked for.

Nothing but the names of these runs and of what they store leads to a file, so an address can't name another one. A file
that changes while a run trains is read again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.types import Int64
from launch.plan.light_tokenizer import LightTokenizer
from launch.report.look.stored import Source, tokenizer_folder
from launch.view import compare, links, rows
from launch.view.links import Links
from launch.view.rows import HIDDEN, Row

TRAINING = "training"
"""Source of the sessions of all iterations; other sources are evaluations, by their entry."""

Stamp = tuple[int, int]
"""When a file was last written, in nanoseconds, and its size in bytes."""


class MissingError(ConfigError):
    """There is no run, source or session of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The sessions of one source of a run."""

    run: str
    source: str
    folder: RunFolder
    table: pa.Table  # the columns of rows.py and links.py
    links: Links
    keys: Mapping[str, int]  # the row of each session, by its key

    @property
    def is_training(self) -> bool:
        """Whether it is what iterations collected."""
        return self.source == TRAINING

    def rows(self, rows: Sequence[int] | Int64, *, of: pa.Table | None = None) -> list[Row]:
        """Rows to show, each with its session's `key`, unique in the source.

        Args:
            rows: their numbers.
            of: the table with further columns; None: the source's own.
        """
        found = (self.table if of is None else of).take(pa.array(rows, pa.int64()))
        keys = _keys(found, self.source)
        shown = found.drop_columns(list(HIDDEN)).to_pylist()
        return [{"key": key} | row for key, row in zip(keys, shown, strict=True)]

    def row(self, key: str) -> int:
        """The session that a key names.

        Raises:
            MissingError: there is none.
        """
        if key not in self.keys:
            raise MissingError(f"{self.run}, {self.source}: has {len(self.keys):,} sessions, but none is {key}")
        return self.keys[key]

    def stored(self, row: int) -> Source:
        """Where the session of a row is stored."""
        iteration = self.table["iteration"][row].as_py()
        entry = None if self.is_training else self.source
        return Source(run=self.folder, evaluation=entry, iteration=iteration)


class Runs:
    """Named runs."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Name the runs: by their folder, with the folder above where two have the same name.

        Args:
            folders: of runs and of sweeps.

        Raises:
            ConfigError: one of them is neither.
        """
        found = list(dict.fromkeys(run.path.resolve() for folder in folders for run in _runs_in(folder)))
        times = Counter(path.name for path in found)
        named = {path: path.name if times[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in found}
        if len(set(named.values())) < len(named):
            named = {path: str(path) for path in found}
        self._folders = {name: RunFolder(path) for path, name in named.items()}
        self._tables: dict[Path, tuple[Stamp, pa.Table]] = {}
        self._opened: dict[tuple[str, str], tuple[Mapping[Path, Stamp], Opened]] = {}
        self._compared: tuple[Opened, Opened, pa.Table] | None = None
        self._tokenizers: dict[Path, Tokenizer] = {}

    @property
    def names(self) -> list[str]:
        """Of the runs, in the order in which they were given."""
        return list(self._folders)

    def folder(self, run: str) -> RunFolder:
        """The folder of a run.

        Raises:
            MissingError: no run has this name.
        """
        if run not in self._folders:
            raise MissingError(f"run: one of {', '.join(self._folders)}; found {run}")
        return self._folders[run]

    def sources(self, run: str) -> list[str]:
        """What a run stores: entries of evaluations, those of learned policies first, then training.

        Raises:
            MissingError: no run has this name.
        """
        folder = self.folder(run)
        first = ("ppo", "ppo_sampled", "sft", "sft_sampled")
        entries = sorted(folder.evaluated_entries(), key=lambda entry: (entry not in first, entry))
        return [*entries, *([TRAINING] if folder.stored_iterations() else [])]

    def open(self, run: str, source: str) -> Opened:
        """The sessions of a source.

        Raises:
            MissingError: no run or source has this name.
            ConfigError: a file is damaged, or its schema is a newer version's.
        """
        folder = self.folder(run)
        if source not in self.sources(run):
            raise MissingError(f"{run}: stores {', '.join(self.sources(run)) or 'no sessions yet'}; found {source}")
        files = dict(_files(folder, source))
        stamps = {path: _stamp(path) for path in files}
        known = self._opened.get((run, source))
        if known is not None and known[0] == stamps:
            return known[1]
        table = pa.concat_tables([self._table(path, files[path], stamps[path]) for path in files]).combine_chunks()
        found = links.find(table)
        opened = Opened(
            run=run,
            source=source,
            folder=folder,
            table=links.with_links(table, found),
            links=found,
            keys={key: row for row, key in enumerate(_keys(table, source))},
        )
        self._opened[run, source] = (stamps, opened)
        return opened

    def beside(self, opened: Opened, other: Opened | None) -> pa.Table:
        """The table of a source, with the columns of compare.py if another one is given; the last one is kept."""
        if other is None:
            return opened.table
        known = self._compared
        if known is None or known[0] is not opened or known[1] is not other:
            known = self._compared = (opened, other, compare.beside(opened.table, other.table))
        return known[2]

    def tokenizer(self, run: str) -> Tokenizer:
        """The tokenizer of a run's tokens.

        Raises:
            ConfigError: it is gone, or can't be read.
        """
        folder = tokenizer_folder(self.folder(run))
        if folder not in self._tokenizers:
            self._tokenizers[folder] = LightTokenizer(folder)
        return self._tokenizers[folder]

    def _table(self, path: Path, iteration: int | None, stamp: Stamp) -> pa.Table:
        known = self._tables.get(path)
        if known is None or known[0] != stamp:
            self._tables[path] = (stamp, rows.read(path, iteration=iteration))
        return self._tables[path][1]


def _runs_in(folder: Path) -> list[RunFolder]:
    run = RunFolder(folder)
    if run.stored_iterations() or run.evaluated_entries() or run.config.is_file() or run.is_finished:
        return [run]
    found = SweepFolder(folder).runs()
    if not found:
        raise ConfigError(
            f"{folder}: must be the folder of a run or of a sweep, found neither sessions nor runs in it; name a "
            "folder such as runs/quickstart"
        )
    return found


def _keys(table: pa.Table, source: str) -> list[str]:
    """Of each row `stream:position`, of training `stream:position:iteration`."""
    names = ("stream", "position", *(["iteration"] if source == TRAINING else []))
    return [":".join(map(str, key)) for key in zip(*(table[name].to_pylist() for name in names), strict=True)]


def _files(folder: RunFolder, source: str) -> Iterator[tuple[Path, int | None]]:
    """The files of a source, with their iterations."""
    if source == TRAINING:
        yield from ((folder.segment_file(iteration), iteration) for iteration in folder.stored_iterations())
    else:
        yield folder.evaluation_file(source), None


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
