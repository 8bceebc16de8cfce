"""A finished run that is run again, with the same, more or fewer iterations."""

import pytest

from agile_ray.errors import ConfigError
from agile_ray.record import provenance
from agile_ray.record.folder import RunFolder
from launch.run import finished, sweep_plan
from launch.run.shipped_configs import read
from launch.sweeps import sweep
from tests.conftest import one_line


def config(folder, *overrides):
    return read("quickstart", [f"run.folder={folder}", "run.name=r", "loop.iterations=6", *overrides])


@pytest.fixture
def run(tmp_path):
    """A run that is finished after 6 iterations."""
    provenance.write(config(tmp_path))
    folder = RunFolder.of(config(tmp_path))
    folder.report.write_text("{}")
    return folder


def saved(run, name):
    (run.checkpoints / name / "resume").mkdir(parents=True)
    (run.checkpoints / name / "resume" / "state.json").write_text("{}")


def test_a_finished_run_does_nothing_and_says_so(call, tmp_path, run):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    code, out, _ = call("train", "quickstart", f"run.folder={tmp_path}", "run.name=r", "loop.iterations=6")
    assert code == 0
    assert out.startswith(f"run {run} is finished, after 6 iterations, and nothing was done")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_what_has_no_effect_on_a_finished_run_is_said(tmp_path, run):
    said = finished.describe(config(tmp_path, "evaluate.sessions=96"))
    assert "Without effect on a finished run: evaluate.sessions was 1536, is 96" in said
    assert "Without effect" not in finished.describe(config(tmp_path))


def test_a_finished_run_keeps_its_configuration(call, tmp_path, run):
    words = (f"run.folder={tmp_path}", "run.name=r", "loop.iterations=6", "env.advice_cost=0.4")
    code, _, err = call("train", "quickstart", *words)
    assert code == 2
    assert "env.advice_cost was 0.3, is 0.4" in one_line(err)


@pytest.mark.parametrize("iterations", [0, 5])
def test_fewer_iterations_than_were_done_are_refused(tmp_path, run, iterations):
    with pytest.raises(ConfigError, match=f"has done 6 iterations, found {iterations}; give at least 6"):
        finished.check_resumable(config(tmp_path, f"loop.iterations={iterations}"))


def test_more_iterations_extend_a_finished_run(tmp_path, run):
    longer = config(tmp_path, "loop.iterations=7")
    assert not finished.is_finished(longer)
    finished.check_resumable(longer)


def test_the_iterations_of_an_unfinished_run_are_those_of_its_checkpoints(tmp_path, run):
    run.report.unlink()
    saved(run, "imitation-00400")
    saved(run, "iteration-00004")
    finished.check_resumable(config(tmp_path, "loop.iterations=4"))
    with pytest.raises(ConfigError, match="has done 4 iterations, found 3"):
        finished.check_resumable(config(tmp_path, "loop.iterations=3"))


def test_a_sweep_extends_finished_runs_and_refuses_to_pass_over_another_configuration(tmp_path, run):
    (tmp_path / "s.yaml").write_text("base: quickstart\nruns: [[run.name=r]]\n")

    def jobs(*overrides):
        path = tmp_path / "s.yaml"
        return sweep_plan.plan(path, sweep_plan.read_plan(path), [f"run.folder={tmp_path}", *overrides])

    (tmp_path / "s").mkdir()
    run.path.rename(tmp_path / "s" / "r")
    assert [job.finished for job in jobs("loop.iterations=6")] == [True]
    assert [job.finished for job in jobs("loop.iterations=9")] == [False]
    with pytest.raises(ConfigError, match=r"ppo.epochs was \d, is 5"):
        sweep.train("s", sweep_plan.read_plan(tmp_path / "s.yaml"), jobs("loop.iterations=6", "ppo.epochs=5"))
