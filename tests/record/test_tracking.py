"""What a program is given of a training while it runs: everything once, whatever the program does meanwhile."""

import threading
from collections import Counter

import pytest

from agile_ray.errors import ConfigError, LearnerError
from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.recorder import RunRecorder
from agile_ray.record.tracking import programs, tracker
from agile_ray.record.tracking.curves import Outcome, public
from agile_ray.record.tracking.tracker import Tracker, open_programs, tracked
from tests.fakes.recorded import FRESH, begun, imitated, recorded, trained
from tests.fakes.stored import ONE

REST_S = 30.0


class Kept:
    """One run of the fake program. Like a database, it takes a value once for its name, step and time."""

    def __init__(self, id, name):
        self.id, self.name, self.place = id, name, f"memory/{id}"
        self.points, self.outcomes, self.indices = {}, [], []
        self.fails, self.remark = lambda: None, ""

    def add(self, entries):
        self.indices += [entry.index for entry in entries]
        for entry in entries:
            for name, value in entry.scalars.values.items():
                self.points.setdefault((name, entry.scalars.step, entry.time_ms, entry.index), value)
        self.fails()  # the answer is lost, the values are not

    def end(self, outcome, *, time_ms):
        self.outcomes.append(outcome)
        return self.remark

    def read(self):
        return Counter((name, step, value) for (name, step, _, _), value in self.points.items())


class Memory:
    """A program that keeps curves in this process."""

    where = "memory"

    def __init__(self):
        self.runs, self.opened = {}, []
        self.fails = lambda: None

    def check(self):
        self.fails()

    def prepare(self):
        self.fails()

    def open(self, name, knobs, *, id, time_ms):
        self.fails()
        assert knobs["env.name"] == "shop"
        self.opened.append((name, id is not None))
        one = self.runs.setdefault(id or str(len(self.runs)), Kept(id or str(len(self.runs)), name))
        one.fails = lambda: self.fails()
        return one

    def of(self, part):
        [one] = [one for one in self.runs.values() if one.name == f"r/{part}"]
        return one


def raising(error):
    def fails(*_, **__):
        raise error

    return fails


@pytest.fixture
def program():
    return Memory()


@pytest.fixture
def config(tmp_path):
    return begun(tmp_path)


@pytest.fixture
def said():
    return []


@pytest.fixture
def follow(program, config, said, monkeypatch):
    """A tracker of the run; nothing happens in a thread until its end."""
    monkeypatch.setattr(tracker, "LOOK_S", REST_S)

    def begin():
        one = Tracker("memory", program, config, say=said.append)
        one.begin()
        return one

    return begin


def ended(one, outcome=Outcome.FINISHED):
    one.end(outcome)
    one.wait(REST_S)


def test_a_program_has_what_is_recorded_while_it_is_recorded(follow, program, config):
    run, one = RunFolder.of(config), follow()
    recorder = RunRecorder(run)
    state = imitated(recorder)
    assert one.look()
    assert program.of("imitation").read() == recorded(run, "imitation")
    for _ in range(3):
        state = trained(recorder, state, 1)
        assert one.look()
        assert program.of("ppo").read() == recorded(run, "ppo")
    recorder.evaluation(state, "ppo", [ONE])
    recorder.close()
    ended(one)
    assert program.of("ppo").read() == recorded(run, "ppo")
    assert program.of("ppo").indices == list(range(len(program.of("ppo").indices)))


@pytest.mark.parametrize(
    ("error", "asked", "outcome"),
    [
        (None, False, Outcome.STOPPED),  # it ended with a checkpoint and without a report
        (LearnerError("loss"), False, Outcome.FAILED),
        (LearnerError("loss"), True, Outcome.STOPPED),
        (KeyboardInterrupt(), False, Outcome.STOPPED),
        ("report", False, Outcome.FINISHED),
    ],
)
@pytest.mark.parametrize("past", [False, True])
def test_how_a_training_ends_is_marked(program, config, said, error, asked, outcome, past):
    run = RunFolder.of(config)

    def train():
        with tracked(config, {"memory": program}, say=said.append, stopping=lambda: asked):
            recorder = RunRecorder(run)
            state = imitated(recorder)
            if past:
                trained(recorder, state, 1)
            recorder.close()
            if error == "report":
                run.report.write_text("{}")
            elif error is not None:
                raise error

    if isinstance(error, BaseException):
        with pytest.raises(type(error)):
            train()
    else:
        train()
    assert program.of("imitation").outcomes == [Outcome.FINISHED if past else outcome]
    if past:
        assert program.of("ppo").outcomes == [outcome]
    assert said == ["memory: curves go to memory"]


def test_a_program_that_is_away_for_a_while_gets_everything_once(follow, program, config, said):
    run, one = RunFolder.of(config), follow()
    recorder = RunRecorder(run)
    state = trained(recorder, imitated(recorder), 1)
    program.fails = raising(OSError("away"))  # before there is a run
    assert not one.look()
    program.fails = lambda: None
    assert one.look()
    program.fails = raising(OSError("away"))  # while there is one
    state = trained(recorder, state, 2)
    assert not one.look()
    trained(recorder, state, 1)
    assert not one.look()
    program.fails = lambda: None
    recorder.close()
    ended(one)
    assert program.of("ppo").read() == recorded(run, "ppo")
    assert (
        said[1:]
        == ["memory: OSError: away; the training goes on, and this is tried again", "memory: memory answers again"] * 2
    )


@pytest.mark.parametrize("past", [False, True])
def test_a_client_that_loses_its_process_as_the_training_stops_is_opened_anew(follow, program, config, said, past):
    run, one = RunFolder.of(config), follow()
    recorder = RunRecorder(run)
    state = trained(recorder, imitated(recorder), 1)
    assert one.look()
    lost = program.of("ppo")
    lost.end = raising(ConnectionError("lost"))
    lost.add = lost.end
    opened = program.open

    def anew(name, knobs, *, id, time_ms):
        lost.__dict__.pop("end", None), lost.__dict__.pop("add", None)
        return opened(name, knobs, id=id, time_ms=time_ms)

    program.open = anew
    if past:
        trained(recorder, state, 1)
    recorder.close()
    ended(one, Outcome.STOPPED)
    assert program.of("ppo").read() == recorded(run, "ppo")
    assert (lost.outcomes, program.opened[-1]) == ([Outcome.STOPPED], ("r/ppo", True))
    assert not [text for text in said if "not given" in text or "not marked" in text]


@pytest.mark.parametrize("away", ["opening", "adding"])
def test_what_is_not_given_at_the_end_is_said_and_given_by_the_next_start(follow, program, config, said, away):
    run, one = RunFolder.of(config), follow()
    recorder = RunRecorder(run)
    state = imitated(recorder)
    if away == "adding":
        state = trained(recorder, state, 1)
        assert one.look()
    program.fails = raising(ConnectionError("away"))
    state = trained(recorder, state, 3)
    recorder.close()
    ended(one)
    count = 5 if away == "opening" else 3
    assert f"memory: {count} lines of the history are not given (ConnectionError: away)" in said[-2]
    assert said[-1] == "memory: its run is not marked as finished (ConnectionError: away)"
    kept = {part.name: part.read() for part in program.runs.values()}
    program.fails = lambda: None
    again, recorder = follow(), RunRecorder(run)
    recorder.resume(state)
    ended(again)
    found = program.of("ppo").read()
    assert {(name, step) for name, step, _ in found} == {(name, step) for name, step, _ in recorded(run, "ppo")}
    assert set(kept.get("r/ppo", ())) <= set(found)
    assert program.of("imitation").read() == recorded(run, "imitation")


def test_a_resumed_training_goes_on_in_the_same_runs_and_no_step_is_there_twice(follow, program, config, said):
    run, one = RunFolder.of(config), follow()
    recorder = RunRecorder(run)
    kept = trained(recorder, imitated(recorder), 2)
    trained(recorder, kept, 2, loss=1.0)
    recorder.close()
    ended(one, Outcome.STOPPED)
    before = program.of("ppo").read()

    again = follow()
    assert again.look()  # what the resumption discards is not looked at
    assert program.of("ppo").read() == before
    recorder = RunRecorder(run)
    recorder.resume(kept)
    assert again.look()
    trained(recorder, kept, 3, loss=2.0)
    recorder.close()
    ended(again)

    losses = sorted(
        (step, value) for (name, step, _, _), value in program.of("ppo").points.items() if name == "iteration/loss"
    )
    assert losses == [(1, 0.0), (2, 0.0), (3, 1.0), (4, 1.0), (5, 2.0)]
    assert [name for name, _ in program.opened] == ["r/imitation", "r/ppo", "r/ppo"]
    assert program.of("ppo").outcomes == [Outcome.STOPPED, Outcome.FINISHED]
    assert said[-1].startswith("memory: lines that were recorded again after a resumption, and keep their earlier")
    assert " there: 2; " in said[-1]


def test_a_training_that_resumes_within_its_process_gives_no_step_twice(follow, program, config):
    run, one = RunFolder.of(config), follow()
    for _ in range(3):  # a lost rank each
        recorder = RunRecorder(run)
        recorder.resume(FRESH)
        trained(recorder, imitated(recorder), 1)
        recorder.close()
        assert one.look()
    ended(one)
    points = Counter((name, step) for name, step, _ in program.of("ppo").read().elements())
    assert points["iteration/loss", 1] == 1
    assert points["resume/discarded_seconds", 0] == 2
    assert Counter(step for name, step, _ in program.of("imitation").read() if name == "imitation/tokens") == {
        1: 1,
        2: 1,
    }


def test_a_batch_that_a_killed_process_may_have_sent_is_not_sent_again(follow, program, config):
    run, one = RunFolder.of(config), follow()
    recorder = RunRecorder(run)
    state = imitated(recorder)
    program.fails = raising(OSError("killed"))
    program.open = lambda *words, **named: Memory.open(program, *words, **named)
    assert not one.look()
    program.fails = lambda: None
    assert one.look()
    before = dict(program.of("imitation").points)
    again = follow()  # nothing of the first ended
    RunRecorder(run).resume(state)
    assert again.look()
    assert program.of("imitation").points == before
    ended(one), ended(again)


def test_a_program_that_hangs_holds_up_the_end_no_longer_than_allowed(program, config, said, monkeypatch):
    monkeypatch.setattr(tracker, "LOOK_S", 0.0)
    monkeypatch.setattr(tracker, "STOP_S", 0.2)
    hangs, free = threading.Event(), threading.Event()

    def hang():
        hangs.set()
        free.wait(REST_S)

    program.fails = hang
    with tracked(config, {"memory": program}, say=said.append, stopping=lambda: True):
        imitated(RunRecorder(RunFolder.of(config)))
        assert hangs.wait(REST_S)
    free.set()
    assert "lines of the history are not given (no answer in time)" in said[1]
    assert len(history.read(RunFolder.of(config).history)) == 2


def test_a_note_that_a_killed_process_left_cut_off_is_passed_over(follow, program, config):
    run, one = RunFolder.of(config), follow()
    state = imitated(RunRecorder(run))
    assert one.look()
    with (run.tracking / "memory.jsonl").open("ab") as file:
        file.write(b'{"where":"mem')
    for _ in range(2):
        again = follow()
        RunRecorder(run).resume(state)
        ended(again)
    assert program.of("imitation").read() == recorded(run, "imitation")
    ended(one)


def test_another_server_is_given_everything(follow, program, config):
    run, one = RunFolder.of(config), follow()
    state = imitated(RunRecorder(run))
    ended(one)
    program.where, program.runs = "elsewhere", {}
    again = follow()
    RunRecorder(run).resume(state)
    ended(again)
    assert program.of("imitation").read() == recorded(run, "imitation")


def test_what_is_left_to_do_by_hand_is_said_at_the_end(follow, program, config, said):
    run, one = RunFolder.of(config), follow()
    recorder = RunRecorder(run)
    state = imitated(recorder)
    assert one.look()
    program.of("imitation").remark = "upload it"
    trained(recorder, state, 1)
    recorder.close()
    ended(one)
    assert said[1:] == ["memory: upload it"]
    assert program.of("ppo").read() == recorded(run, "ppo")


def test_a_line_that_is_being_written_is_left_for_the_next_look(follow, program, config):
    run, one = RunFolder.of(config), follow()
    imitated(RunRecorder(run))
    whole = run.history.read_bytes()
    run.history.write_bytes(whole[:-9])
    assert one.look()
    assert len(program.of("imitation").indices) == 1
    with run.history.open("ab") as file:
        file.write(whole[-9:])
    assert one.look()
    assert program.of("imitation").read() == recorded(run, "imitation")
    ended(one)


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_a_server_that_does_not_answer_is_one_line_before_anything_starts(program, tmp_path, monkeypatch, fault):
    free = threading.Event()
    monkeypatch.setattr(tracker, "CHECK_S", 0.1 if fault == "hangs" else REST_S)
    monkeypatch.setattr(tracker, "live", lambda form, folder: program)
    program.fails = raising(OSError("refused\nby the host")) if fault == "refuses" else lambda: free.wait(REST_S)
    found = "OSError: refused by the host" if fault == "refuses" else "no answer in 0.1 s"
    with pytest.raises(ConfigError, match=f"^--track x: memory must answer .*, found {found}; [^\n]*$"):
        open_programs(["x"], RunFolder(tmp_path / "r"))
    free.set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", programs.PROGRAMS)
def test_a_missing_package_is_one_line_before_anything_starts(form, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, form, None)
    with pytest.raises(ConfigError, match=rf"^{form}: needs a package .* pip install 'agile-ray\[{form}\]'$"):
        open_programs([form], RunFolder(tmp_path / "r"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://a:b@host:5000/x?token=1", "https://host:5000/x"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("postgresql+psycopg://me:secret@db/mlflow", "postgresql+psycopg://db/mlflow"),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address, shown):
    assert public(address) == shown
