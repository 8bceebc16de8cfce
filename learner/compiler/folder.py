"""Where DeepSpeed's extensions are compiled."""

import os
import sys
from hashlib import sha256
from pathlib import Path

from agile_ray.errors import ConfigError

KEY = "TORCH_EXTENSIONS_DIR"
"""The environment variable that torch reads."""


def choose_folder() -> Path:
    """The folder to compile in: what TORCH_EXTENSIONS_DIR says, else one of this environment.

    The extensions depend on the environment's headers: a folder that several environments share would be rebuilt at
    every change between them. Where the environment is read-only, the folder is in the user's cache.

    Raises:
        ConfigError: no folder can be written.
    """
    if KEY in os.environ:
        tried = [Path(os.environ[KEY])]
    else:
        environment = sha256(sys.prefix.encode()).hexdigest()[:12]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
        tried = [Path(sys.prefix, "torch_extensions"), cache / "agile-ray" / "torch_extensions" / environment]
    for folder in tried:
        if _writable(folder):
            return folder
    raise ConfigError(
        f"learner: DeepSpeed compiles an extension and needs a folder, found none that can be written among "
        f"{', '.join(map(str, tried))}; set {KEY} to one"
    )


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
