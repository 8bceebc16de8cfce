"""Keeps secrets out of what is written down. They come from environment variables, never from a config.

A tool may print its environment, and a server may repeat the key that it refuses. Before such a text becomes an
observation, an error or a log line, the values of secret variables in it are replaced by their names.
"""

import os
import re
from functools import cache
from urllib.parse import urlsplit

NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$", re.IGNORECASE)
"""How the names of environment variables end whose values are secrets."""
SHORTEST = 8
"""Characters of the shortest value that is replaced: shorter ones occur in ordinary words."""


def redacted(text: str) -> str:
    """The text, with `$NAME` in place of the value of each environment variable that holds a secret."""
    hidden = [(value, name) for name, value in os.environ.items() if len(value) >= SHORTEST and _is_secret(name)]
    for value, name in sorted(hidden, key=lambda pair: -len(pair[0])):
        text = text.replace(value, f"${name}")
    return text


@cache  # every ask and every reply of a tool looks at all variables
def _is_secret(name: str) -> bool:
    return NAMES.search(name) is not None


def check_public(address: str) -> str:
    """Return an address of a service if it holds no secret.

    Raises:
        ValueError: it holds a user name, a password or a query, which would be written into the run's folder.
    """
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query:
        raise ValueError(
            "an address holds no user, password or query, since configs are kept in the run's folder; put the secret "
            "into an environment variable"
        )
    return address
