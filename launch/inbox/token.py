"""The inbox's token: without it, nothing is answered."""

import os
import secrets
from pathlib import Path

from agile_ray.errors import ConfigError
from agile_ray.inbox.line import TOKEN

SHORTEST = 16
"""Characters of the shortest token that is accepted."""


def token(folder: Path) -> str:
    """The token of the environment, else that of FOLDER/token, which is made if it is missing.

    Raises:
        ConfigError: it is too short, or others may read the file.
    """
    given = os.environ.get(TOKEN)
    path = folder / "token"
    if not given:
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32))
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: only its owner may read a token; chmod 600 it")
        given = path.read_text(encoding="ascii").strip()
    if len(given) < SHORTEST:
        raise ConfigError(f"{TOKEN}: a token has at least {SHORTEST} characters, found {len(given)}")
    return given
