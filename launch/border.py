"""How errors reach the user: an expected error is one line, an unexpected one a traceback.

error                               stderr        exit code
ConfigError                         one line      2
a full disk, also of an actor       one line      2
a name too long for a disk          one line      2
a disk that fails or is read-only   one line      2
a library of training is missing    one line      2
any other AgileError                one line      1
Ctrl-C                              one line      130
anything else                       traceback     1

Output goes to any terminal: what its encoding lacks is written in ASCII.
"""

import codecs
import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agile_ray.errors import FULL, AgileError, ConfigError, is_full_disk

FAILED = frozenset({errno.EIO, errno.EROFS, errno.ESTALE})
"""Error numbers of a disk that fails, is read-only, or is gone."""
TRAINING = frozenset({"deepspeed", "peft", "sentence_transformers", "tensorboard", "torch", "transformers", "vllm"})
"""Libraries that the thin client does not bring."""
ALWAYS = ("deepspeed", "torch", "transformers", "vllm")
"""Of these, the libraries that every training needs."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
SHOWN_CHARACTERS = 100
"""Length to which an error message cuts a name."""
PLAIN = {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{HORIZONTAL ELLIPSIS}": "..."}
"""What stands for characters of ours that an encoding lacks; others are written as \\xe4."""


class Interrupted(BaseException):
    """Ctrl-C, after the user was told. No Exception: it must pass through whatever handles those."""


def interrupted(what: str = "") -> Interrupted:
    """Print the one line about Ctrl-C at once, because ending engines takes a while.

    Args:
        what: was saved, and how to go on.
    """
    _say(f"stopped by Ctrl-C{what and f'; {what}'}")
    return Interrupted()


@contextmanager
def border() -> Iterator[None]:
    """Turn an expected error into one line and an exit code."""
    _write_to_any_terminal()
    try:
        yield
    except ConfigError as error:
        _stop(error, code=2)
    except AgileError as error:
        _stop(error, code=2 if is_full_disk(error) else 1)
    except ModuleNotFoundError as error:
        _stop_without(error)
        raise
    except KeyboardInterrupt:
        _stop("stopped by Ctrl-C", code=INTERRUPTED)
    except Interrupted:
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        _stop_at_disk(error)
        raise


def _stop_without(error: ModuleNotFoundError) -> None:
    """Stop if a library of training is not installed."""
    if (error.name or "").partition(".")[0] in TRAINING:
        _stop(
            f"{error.name} is not installed: this command needs what trains; pip install 'agile-ray[train]', on a "
            "machine without GPUs 'agile-ray[cpu]'; or give it on a node of a cluster, or train there with `agile-ray "
            "submit` or `agile-ray sweep --address`",
            code=2,
        )


def _stop_at_disk(error: OSError) -> None:
    """Stop if the disk is full or fails, or a name is too long for it."""
    where = error.filename or "disk"
    if error.errno in FULL:
        _stop(f"{where}: no space left; free some, or point run.folder elsewhere", code=2)
    if error.errno in FAILED:
        _stop(f"{where}: the disk can't be used ({error.strerror}); mend it, or point run.folder elsewhere", code=2)
    if error.errno == errno.ENAMETOOLONG:
        _stop(f"{str(error.filename)[:SHOWN_CHARACTERS]}...: the name is too long for the disk", code=2)


def _write_to_any_terminal() -> None:
    codecs.register_error("agile_ray.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="agile_ray.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    written = (PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in characters)
    return "".join(written), error.end


def _stop(error: BaseException | str, *, code: int) -> None:
    _say(str(error))
    raise SystemExit(code) from None


def _say(text: str) -> None:
    print(f"agile-ray: {' '.join(text.split())}", file=sys.stderr, flush=True)
