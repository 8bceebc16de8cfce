"""The viewer over HTTP: what it refuses, how it answers, how fast, and that its page needs nothing else."""

import re
import socket
import time

import pytest

from agile_ray.record import evaluations
from launch.view.app import HEADERS, STATIC
from launch.view.listening import hosts
from tests.conftest import one_line
from tests.fakes.copies import write_copies
from tests.fakes.worlds import changed
from tests.launch.test_show import asking, keep, reading
from tests.launch.view.conftest import ADDRESS, client

SCRIPTS = sorted(STATIC.glob("*.js"))
ODD = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u2028"


@pytest.fixture
def viewer(run, tokenizer):
    evaluations.keep(
        run, "ppo", [asking(tokenizer), changed(asking(tokenizer, position=1), answer=ODD, question_id=ODD)]
    )
    return client(run.path)


@pytest.mark.parametrize(
    ("path", "code"), [("/", 200), ("/static/main.js", 200), ("/api/sessions", 200), ("/api/sessions?run=x", 404),
                       ("/api/sessions?sort=x", 400), ("/x", 404), ("/static/x.js", 404)],
)  # fmt: skip
def test_every_answer_forbids_what_the_page_does_not_need(viewer, path, code):
    found = viewer.get(path)
    assert found.status_code == code
    assert {name: found.headers[name] for name in HEADERS} == HEADERS
    rules = dict(part.strip().split(" ", 1) for part in found.headers["Content-Security-Policy"].split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules.values()) == {"'self'", "'none'"}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd",
        "/static/..\\app.py",
        "/api/sessions?run=../r", "/api/sessions?run=/etc", "/api/sessions?source=../../config.yaml",
        "/api/sessions?source=ppo.parquet", "/api/session?key=../../etc/passwd", "/api/session?key=",
        "/api/sessions?other_source=../ppo", "/api/sessions?other_source=ppo&other_run=..",
    ],
)  # fmt: skip
def test_nothing_outside_the_runs_is_reached(viewer, path):
    found = viewer.get(path)
    assert found.status_code == 404
    assert "root:" not in found.text
    assert "def application" not in found.text


def test_an_error_says_what_is_there_in_one_line(viewer):
    assert viewer.get("/api/sessions?source=x").json() == {"error": "r: stores ppo; found x"}


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/sessions"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(viewer, path, method):
    assert viewer.request(method, path).status_code == 405


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8321", 200),
        ("localhost:1", 200),
        ("[::1]:8321", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
    ],
)
def test_a_name_that_only_leads_here_is_refused(viewer, host, code):
    assert viewer.get(f"{ADDRESS}/api/runs", headers={"Host": host}).status_code == code


def test_other_machines_may_ask_by_any_name_if_it_listens_to_them():
    assert hosts("0.0.0.0") == hosts("::") == hosts("node7") == ["*"]  # noqa: S104  no socket is bound
    assert "*" not in [*hosts("127.0.0.1"), *hosts("localhost"), *hosts("::1"), *hosts("127.0.0.5")]
    assert "127.0.0.5" in hosts("127.0.0.5")


def test_what_a_run_stores_is_sent_as_data_and_never_in_the_page(viewer):
    found = viewer.get("/api/sessions", params={"text": ODD.lower()})
    assert found.headers["Content-Type"] == "application/json"
    [row] = found.json()["rows"]
    assert (row["answer"], row["question_id"]) == (ODD, ODD)
    one = viewer.get("/api/session", params={"key": row["key"]}).json()["session"]
    assert one["row"]["answer"] == ODD
    assert "script>alert" not in viewer.get("/", params={"text": ODD}).text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_never_reads_text_as_markup_or_code(path):
    text = path.read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|javascript:", text
    )
    assert not re.search(r"set(Timeout|Interval)\(\s*[\"'`]", text)


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_a_static_file_loads_nothing_from_elsewhere(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert "//" not in re.sub(r"(?m)(^|\s)//.*$", "", text) or path.suffix == ".svg"
    assert not re.search(r"https?:|wss?:|@import|url\(|data:", text)
    for target in re.findall(r"(?:from|import\()\s*[\"']([^\"']+)", text):
        assert (STATIC / target).is_file()
        assert target.startswith("./")


def test_the_page_has_no_script_or_style_of_its_own_and_all_that_it_names_exists(viewer):
    page = viewer.get("/").text
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page) == []
    named = re.findall(r"(?:src|href)=\"(/[^\"]+)\"", page)
    assert named
    assert [viewer.get(path).status_code for path in named] == [200] * len(named)
    ids = set(re.findall(r"\bid=\"(\w+)\"", page))
    used = {name for path in SCRIPTS for name in re.findall(r"getElementById\(\"(\w+)\"\)", path.read_text())}
    assert used <= ids


def test_every_filter_of_the_form_is_a_parameter(viewer):
    page = viewer.get("/").text
    names = set(re.findall(r"<(?:input|select)[^>]*\bname=\"(\w+)\"", page))
    parameters = {"run", "source", "other_run", "other_source"}
    assert {"wrong", "asked", "known", "failed", "kind", "iteration", "stream", "text"} <= names
    for name in names - parameters:
        found = viewer.get("/api/sessions", params={name: "?", "other_source": "ppo"})
        assert found.status_code == 400 or not found.json()["rows"], name


def test_a_damaged_file_is_named(viewer, run):
    run.evaluation_file("ppo").write_bytes(b"PAR1")
    found = viewer.get("/api/sessions")
    assert found.status_code == 400
    assert "ppo.parquet: must be a whole Parquet file" in found.json()["error"]


def test_a_page_of_rows_is_answered(run, tokenizer):
    keep(run, 1, *(asking(tokenizer, position=position) for position in range(10)))
    found = client(run.path).get("/api/sessions", params={"offset": 7, "limit": 2}).json()
    assert (found["total"], found["summary"]["sessions"], found["offset"]) == (10, 10, 7)
    assert [row["position"] for row in found["rows"]] == [7, 8]
    assert client(run.path).get("/api/sessions", params={"offset": 99}).json()["rows"] == []


STREAMS, EACH = 1000, 100
ALLOWED_S = 1.0
"""Of processor time, on a machine of any speed; on a free core it takes less than 0.3 s."""


@pytest.fixture(scope="module")
def many(tmp_path_factory, tokenizer):
    """A run whose evaluation has 100,000 sessions: one stream, a thousand times."""
    folder = tmp_path_factory.mktemp("many") / "big"
    path = folder / "evaluation" / "ppo.parquet"
    stream = [
        asking(tokenizer, position=0)
        if position % 3 == 0
        else reading(tokenizer, position - position % 3, position=position)
        for position in range(EACH)
    ]
    write_copies(path, stream, copies=STREAMS)
    return client(folder)


@pytest.mark.parametrize(
    "params",
    [
        {"asked": 1, "wrong": 0, "sort": "stream", "descending": 1},
        {"text": "very", "sort": "readers"},
        {"known": 1, "sort": "answer", "offset": 50_000},
        {"other_source": "ppo", "parted": 0, "sort": "reward"},
    ],
)
def test_a_hundred_thousand_sessions_are_filtered_and_sorted_at_once(many, params):
    many.get("/api/sessions", params=params)  # reads the file
    start = time.process_time()
    found = many.get("/api/sessions", params=params).json()
    taken = time.process_time() - start
    assert found["total"] == STREAMS * EACH
    assert len(found["rows"]) == 200
    assert taken < ALLOWED_S


def test_a_folder_without_runs_is_refused_in_one_line(call, tmp_path):
    code, _, err = call("view", tmp_path)
    assert code == 2
    assert "must be the folder of a run or of a sweep" in one_line(err)


def test_a_port_that_is_taken_is_refused_in_one_line(call, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = call("view", run.path, "--port", taken.getsockname()[1])
    assert code == 2
    assert "--host, --port: an address that is free here" in one_line(err)
