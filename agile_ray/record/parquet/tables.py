"""Tables in Parquet files that are whole or absent and name their schema version."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agile_ray.errors import ConfigError
from agile_ray.record.parquet.columns import SCHEMA_VERSION, Record
from agile_ray.record.whole import whole_file

VERSION_KEY = "agile_ray_schema"
"""Where a file's metadata names its schema version."""


class DamagedFileError(ConfigError):
    """A Parquet file is cut off or damaged."""


def is_readable(path: Path) -> bool:
    """Whether a Parquet file exists and is not cut off."""
    try:
        with _readable(path):
            pq.read_metadata(path)
    except ConfigError:
        return False
    return True


def count_rows(path: Path) -> int:
    """Number of rows of a Parquet file.

    Raises:
        ConfigError: the file is missing or cut off.
    """
    with _readable(path):
        return pq.read_metadata(path).num_rows


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; was the run stopped before it was written?") from error
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedFileError(
            f"{path}: must be a whole Parquet file, found {path.stat().st_size} bytes that can't be read ({reason}); "
            "put back a copy"
        ) from error


def write_table(path: Path, records: Sequence[Record], columns: Mapping[str, pa.DataType]) -> None:
    """Write records as rows; a column that a record lacks is null there."""
    schema = pa.schema(columns, metadata={VERSION_KEY: str(SCHEMA_VERSION)})
    cells = {name: [record.get(name) for record in records] for name in columns}
    # `from_pandas`: NaN, which stands for unknown, becomes null, so that equal columns compare as equal.
    arrays = [pa.array(cells[name], kind, from_pandas=_holds_floats(kind)) for name, kind in columns.items()]
    # Exponents repeat, mantissas do not, so their bytes are stored apart.
    floats = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name, kind in columns.items() if _holds_floats(kind)}
    with whole_file(path) as aside:
        pq.write_table(
            pa.table(arrays, schema=schema),
            aside,
            compression="zstd",
            compression_level=9,
            use_dictionary=False,  # it hides from zstd what lines share
            column_encoding=floats,
        )


def _holds_floats(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_floating(kind.value_type)


def read_table(path: Path, columns: Mapping[str, pa.DataType], *, may_lack: frozenset[str] = frozenset()) -> pa.Table:
    """Read columns of a file; those of `may_lack` that it does not have are null.

    Raises:
        ConfigError: the file is missing or damaged, its schema is a newer version's, or an older version wrote it
            without a column.
    """
    with _readable(path):
        schema = pq.read_schema(path)
    version = _version(path, schema)
    lacking = [name for name in columns if name not in schema.names]
    missed = [name for name in lacking if name not in may_lack]
    if missed:
        raise ConfigError(
            f"{path}: must have {', '.join(missed)}, but was stored with schema {version}, which has no such column; "
            f"train again to store it (schema {SCHEMA_VERSION})"
        )
    with _readable(path):
        found = pq.read_table(path, columns=[name for name in columns if name not in lacking])
    for name in lacking:
        found = found.append_column(name, pa.nulls(found.num_rows, columns[name]))
    return found.select(list(columns))


def _version(path: Path, schema: pa.Schema) -> int:
    """Version of a file's schema; 0 if it names none.

    Raises:
        ConfigError: it is newer than this code's.
    """
    named = (schema.metadata or {}).get(VERSION_KEY.encode(), b"0").decode()
    if not named.isdecimal() or int(named) > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema version must be at most {SCHEMA_VERSION}, found {named}; read it with the agile-ray that "
            "wrote it"
        )
    return int(named)
