"""What a spec says beside the configuration of one run: which runs differ in what, and which of them are compared."""

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


class Axes(Section):
    """The runs of a sweep. A spec without any of these keys is one run."""

    runs: tuple[tuple[str, ...], ...] = ()
    """One list of overrides per run."""
    grid: dict[str, tuple[str | None, ...]] = {}
    """Values by key; every combination is a run. Seeds are those of the key `seed`."""
    together: bool = False
    """Train all runs in one process, on the same engines and learners, sharing imitation."""
    compare: ComparedKey | None = None
    """Which runs to compare."""

    @property
    def vary(self) -> bool:
        """Whether they name runs."""
        return bool(self.runs or self.grid)
