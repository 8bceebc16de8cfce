"""What all tests share: no deadline for property tests, and the command line."""

import sys

import pytest
from hypothesis import settings

from launch.main import main

settings.register_profile("random", deadline=None)  # a busy machine may be a thousand times slower
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["agile-ray", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        streams = capsys.readouterr()
        return end.value.code, streams.out, streams.err

    return run


def one_line(err):
    """The only line of an error output."""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("agile-ray: ")
    return lines[0]
