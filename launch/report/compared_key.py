"""The key by which compared runs differ."""

from functools import reduce

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.knobs import Section


class ComparedKey(Section):
    """A configuration key, and its value in the runs that all others are compared with."""

    key: str
    """The key, such as credit.mode."""
    to: str
    """Its value in the baseline run, such as heuristic."""

    def value(self, config: RunConfig) -> str:
        """The key's value in a configuration.

        Raises:
            ConfigError: the configuration has no such key.
        """
        try:
            return str(reduce(getattr, self.key.split("."), config))
        except AttributeError as error:
            raise ConfigError(
                f"compare {self.key}={self.to}: the key must be one of a run's, found {self.key}; "
                "`agile-ray keys` lists them"
            ) from error


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
