"""What tests of the command line share."""

import sys

import pytest

from launch.main import main


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
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("agile-ray: ")
    return lines[0]
