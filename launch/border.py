"""How errors reach the user: an expected error is one line, an unexpected one a traceback.

error                               stderr        exit code
ConfigError                         one line      2
a full disk, also of an actor       one line      2
a disk that fails or is read-only   one line      2
any other AgileError                one line      1
Ctrl-C                              one line      130
anything else                       traceback     1
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.errors import FULL, AgileError, ConfigError, is_full_disk

FAILED = frozenset({errno.EIO, errno.EROFS, errno.ESTALE})
"""Error numbers of a disk that fails, is read-only, or is gone."""


@contextmanager
def border() -> Iterator[None]:
    """Turn an expected error into one line and an exit code."""
    try:
        yield
    except ConfigError as error:
        _stop(error, code=2)
    except AgileError as error:
        _stop(error, code=2 if is_full_disk(error) else 1)
    except KeyboardInterrupt:
        _stop("stopped by Ctrl-C", code=130)
    except OSError as error:
        where = error.filename or "disk"
        if error.errno in FULL:
            _stop(f"{where}: no space left; free some, or point run.folder elsewhere", code=2)
        if error.errno in FAILED:
            _stop(f"{where}: the disk can't be used ({error.strerror}); mend it, or point run.folder elsewhere", code=2)
        raise


def _stop(error: BaseException | str, *, code: int) -> None:
    line = " ".join(str(error).split())
    print(f"agile-ray: {line}", file=sys.stderr)
    raise SystemExit(code) from None
