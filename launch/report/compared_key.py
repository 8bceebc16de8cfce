"""The key by which compared runs differ, as the command line has it."""

from agile_ray.config import ComparedKey
from agile_ray.errors import ConfigError


def parse(text: str) -> ComparedKey:
    """Read KEY=VALUE.

    Raises:
        ConfigError: the text has another form.
    """
    key, _, to = text.partition("=")
    if not (key and to):
        raise ConfigError(
            f"--compare: a key and its baseline value are written KEY=VALUE, such as imitation.asking=judgement; "
            f"found {text!r}"
        )
    return ComparedKey(key=key, to=to)
