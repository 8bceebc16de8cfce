"""How errors reach the user: an expected error is one line, an unexpected one a traceback.

error                               stderr        exit code
ConfigError, a full disk            one line      2
any other AgileError                one line      1
Ctrl-C                              one line      130
anything else                       traceback     1
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.errors import AgileError, ConfigError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk."""


@contextmanager
def border() -> Iterator[None]:
    """Turn an expected error into one line and an exit code."""
    try:
        yield
    except ConfigError as error:
        _stop(error, code=2)
    except AgileError as error:
        _stop(error, code=1)
    except KeyboardInterrupt:
        _stop("stopped by Ctrl-C", code=130)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _stop(f"{error.filename or 'disk'}: no space left; free some, or point run.folder elsewhere", code=2)


def _stop(error: BaseException | str, *, code: int) -> None:
    line = " ".join(str(error).split())
    print(f"agile-ray: {line}", file=sys.stderr)
    raise SystemExit(code) from None
