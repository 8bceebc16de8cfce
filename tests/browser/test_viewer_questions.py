"""Questions about a run, each answered by clicks and typing, and compared with what the run's files say.

The expected answers are worked out here from the Parquet files as they lie, without the viewer's or the record's code.
"""

from itertools import groupby

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect
from tokenizers import Tokenizer

from tests.browser.conftest import BROAD, NARROW, served, watched
from tests.browser.viewer import Viewer
from tests.fakes.shop_run import GONE, write_shop_run

ITERATION = 9


class Files:
    """A run's files: each session is a dict, as Parquet has it."""

    def __init__(self, run):
        self.ppo = _lines(run.evaluation_file("ppo"))
        self.sft = _lines(run.evaluation_file("sft"))
        self.iteration = _lines(run.segment_file(ITERATION))
        self._tokenizer = Tokenizer.from_file(str(run.sft.path / "tokenizer.json"))

    def text(self, ids):
        return self._tokenizer.decode(ids, skip_special_tokens=False).removeprefix("<s>")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_shop_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def files(run):
    return Files(run)


@pytest.fixture(scope="module")
def home(run):
    with served(run.path) as address:
        yield address


@pytest.fixture(scope="module", params=[(BROAD, False), (NARROW, True)], ids=["desk", "telephone"])
def whole(request, home, browser):  # the run is played, in an event loop, before the browser starts its own
    width, dark = request.param
    with watched(browser, home, width=width, dark=dark) as found:
        yield found


@pytest.fixture
def viewer(whole):
    """The viewer at its first page; afterwards nothing went wrong in it."""
    found = Viewer(whole.page, whole.home)
    found.start()
    yield found
    whole.check()


def test_why_is_a_session_wrong_although_memory_held_the_answer(viewer, files):
    lost = [one for one in files.ppo if is_wrong(one) and one["known"]]
    viewer.choose("wrong", "wrong")
    viewer.choose("known", "yes")
    viewer.found(len(lost), of=len(files.ppo))
    viewer.open(0)
    reasons = [why(one) for one in lost]
    for index, (one, reason) in enumerate(zip(lost, reasons, strict=True)):
        if index:
            viewer.panel.get_by_text("next", exact=True).click()
        expect(viewer.panel.get_by_text("Memory held an entry")).to_have_text(
            f"Memory held an entry on the question's item ({sessions(memory(one))} remembered), {reason}; "
            "it did not ask; reward 0, price 0.3."
        )
    assert set(reasons) == set(WHY)


def test_what_did_an_entry_cost_that_a_session_read(viewer, files):
    found = [one for one in files.ppo if one["correct"] and one["known"] and not one["receipts"]]
    reader = found[0]
    viewer.choose("wrong", "right")
    viewer.choose("known", "yes")
    viewer.choose("asked", "no")
    viewer.found(len(found), of=len(files.ppo))
    viewer.open(0)
    lines = viewer.panel.locator(".reads li")
    expect(lines).to_have_count(len(reader["reads"]))
    for line, use in zip(lines.all(), reader["reads"], strict=True):
        writer = at(files.ppo, reader["stream"], use["writer"])
        [receipt] = writer["receipts"]
        expect(line).to_have_text(
            f"{use['kind']}, similarity {decimals(use['similarity'])}, of session {writer['position']}: right, asked "
            f"and paid {amount(receipt['price'] / 1000)}, told “{receipt['advice']}”; "
            f"read by {sessions(len(readers(writer, files.ppo)))}"
        )
    writer = at(files.ppo, reader["stream"], reader["reads"][0]["writer"])
    lines.first.get_by_role("link").click()
    expect(viewer.panel.locator("h1")).to_contain_text(f"session {writer['position']} of")
    [receipt] = writer["receipts"]
    expect(viewer.panel.get_by_text("asked gold")).to_have_text(
        f"asked gold, paid 0.3, waited {receipt['latency_s']:.2f} s: “{receipt['advice']}”"
    )


def test_which_asks_never_paid(viewer, files):
    asks = [one for one in files.ppo if one["receipts"]]
    never = [one for one in asks if not served_by(one, files.ppo)]
    assert 0 < len(never) < len(asks)
    viewer.choose("asked", "yes")
    viewer.choose("served", "no")
    viewer.found(len(never), of=len(files.ppo))
    assert viewer.cells("position") == [str(one["position"]) for one in never]
    viewer.open(0)
    head = viewer.panel.get_by_role("heading", name="read by")
    expect(head).to_contain_text("of which 0 answered right without asking")


def test_where_did_credit_go_in_an_iteration(viewer, files):
    ranked = sorted(files.iteration, key=lambda one: -one["credit"])
    most = ranked[0]
    viewer.choose("source", "training")
    viewer.write("iteration", str(ITERATION))
    viewer.found(len(ranked), of=3 * len(ranked))
    viewer.order_by("credit")
    assert viewer.cells("credit")[:5] == [decimals(one["credit"]) for one in ranked[:5]]
    viewer.open(0)
    part = viewer.panel.locator(".part", has_text="← credit")
    expect(part.locator("b")).to_have_text(f" ← credit +{amount(most['credit'])}")
    actions = [token for token, own in zip(most["token_ids"], most["action_mask"], strict=True) if own]
    assert files.text([actions[most["decided_after"] - 1]]) in part.locator(".tokens").inner_text()


def test_which_entry_was_read_most(viewer, files):
    most = max(files.ppo, key=lambda one: len(readers(one, files.ppo)))
    found = readers(most, files.ppo)
    viewer.order_by("readers")
    assert viewer.cells("readers")[0] == str(len(found))
    viewer.open(0)
    served, kinds = len(served_by(most, files.ppo)), ", ".join(dict.fromkeys(use["kind"] for use in most["writes"]))
    expect(viewer.panel.get_by_role("heading", name="read by")).to_have_text(
        f"Wrote {kinds}; read by {len(found)} later sessions, of which {served} answered right without asking"
    )
    assert viewer.panel.locator(".readers a").all_inner_texts() == [f"session {one['position']}" for one in found]


def test_from_which_readers_does_credit_come(viewer, files):
    most = max(files.iteration, key=lambda one: len(readers(one, files.iteration)))
    shares = {share["reader"]: share["amount"] for share in most["credit_shares"]}
    assert 0 < len(shares) < len(readers(most, files.iteration))
    viewer.choose("source", "training")
    viewer.write("iteration", str(ITERATION))
    viewer.found(len(files.iteration), of=3 * len(files.iteration))
    viewer.order_by("readers")
    viewer.open(0)
    lines = viewer.panel.locator(".readers li")
    giving = lines.filter(has_text="gives credit")
    expect(giving).to_have_count(len(shares))
    assert giving.locator("a").all_inner_texts() == [f"session {at} of iteration {ITERATION}" for at in shares]
    for line, amount in zip(giving.all_inner_texts(), shares.values(), strict=True):
        assert float(line.rpartition("gives credit ")[2]) == pytest.approx(amount, abs=0.0006)
    rest = lines.last.inner_text().removeprefix("credit that no single reader gives: ")
    assert float(rest) == pytest.approx(most["credit"] - sum(shares.values()), abs=0.0006)


def test_where_do_two_policies_part(viewer, files):
    pairs = [
        (own, other)
        for own, other in zip(files.ppo, files.sft, strict=True)
        if result(own) != result(other) or bool(own["receipts"]) != bool(other["receipts"])
    ]
    viewer.choose("other_source", "sft")
    viewer.choose("parted", "yes")
    viewer.found(len(pairs), of=len(files.ppo))
    viewer.open(0)
    articles = viewer.panel.locator("article")
    expect(articles).to_have_count(2)
    texts = [[files.text(ids) for ids in stretches(one)] for one in pairs[0]]
    first = next(i for i, (own, other) in enumerate(zip(*texts, strict=False)) if own != other)
    for article, own in zip(articles.all(), texts, strict=True):
        assert article.locator(".parted + .part .tokens").inner_text().replace("⏎", "").strip() == own[first].strip()


def test_which_sessions_failed_and_why(viewer, files):
    [failed] = [one for one in files.ppo if one["ending"] == "failed"]
    viewer.choose("failed", "yes")
    viewer.found(1, of=len(files.ppo))
    viewer.open(0)
    expect(viewer.panel.locator("h1")).to_contain_text(f"{failed['stream']}, session {failed['position']} of")
    expect(viewer.panel.locator(".outcome")).to_have_text(f"failed: {GONE}: no answer")


def test_which_kind_of_question_is_answered_wrong_most(viewer, files):
    played = sorted((one for one in files.ppo if one["ending"] != "failed"), key=lambda one: one["kind"])
    kinds = {kind: list(found) for kind, found in groupby(played, key=lambda one: one["kind"])}
    counts = {kind: sum(one["kind"] == kind for one in files.ppo) for kind in kinds}
    right = {kind: mean(one["correct"] for one in found) for kind, found in kinds.items()}
    viewer.page.get_by_text("by kind").click()
    expect(viewer.page.locator("#summary li")).to_have_text(
        [
            f"{kind}, {counts[kind]}: {100 * right[kind]:.1f} % right, "
            f"{100 * mean(bool(one['receipts']) for one in found):.1f} % asked, "
            f"reward {mean(reward(one) for one in found):.3f}"
            for kind, found in kinds.items()
        ]
    )
    worst = min(right, key=right.__getitem__)
    viewer.choose("kind", worst)
    viewer.choose("wrong", "wrong")
    viewer.found(sum(not one["correct"] for one in kinds[worst]), of=len(files.ppo))


def test_how_did_memory_grow_along_a_stream(viewer, files):
    stream = files.ppo[-1]["stream"]
    along = [one for one in files.ppo if one["stream"] == stream]
    viewer.write("stream", "/".join(stream.split("/")[-2:]))
    viewer.found(len(along), of=len(files.ppo))
    viewer.choose("wrong", "wrong")
    viewer.found(sum(is_wrong(one) for one in along), of=len(files.ppo))
    viewer.open(0)
    viewer.panel.get_by_role("link", name="memory along this stream").click()
    marks = viewer.page.locator("#growth a")
    expect(marks.locator("title")).to_have_text(
        [
            f"session {one['position']}: {result(one)}, memory {memory(one)}{', asked' if one['receipts'] else ''}"
            for one in along
        ]
    )
    own = viewer.page.locator("#growth circle.own")
    expect(own).to_be_visible()
    first = next(one for one in along if is_wrong(one))
    expect(viewer.page.locator("#growth a:has(.own) title")).to_contain_text(f"session {first['position']}:")


def test_where_did_the_policy_nearly_ask(viewer, files):
    calm = [one for one in files.ppo if not one["receipts"]]
    nearest = max(calm, key=asking)
    viewer.choose("asked", "no")
    viewer.found(len(calm), of=len(files.ppo))
    viewer.order_by("P(ask)")
    assert viewer.cells("ask_probability")[0] == decimals(asking(nearest))
    viewer.open(0)
    expect(viewer.panel.locator(".numbers", has_text=f"P(ask) {decimals(asking(nearest))}")).to_be_visible()


def test_what_was_a_token_worth(viewer, files):
    one = files.iteration[0]
    number = 3  # of the action tokens, from 0
    place = [i for i, own in enumerate(one["action_mask"]) if own][number]
    viewer.choose("source", "training")
    viewer.write("iteration", str(ITERATION))
    viewer.found(len(files.iteration), of=3 * len(files.iteration))
    viewer.open(0)
    viewer.panel.locator(".part.policy .token").nth(number).click()
    card = viewer.panel.locator(".card")
    expect(card.locator("dt").first).to_be_visible()
    shown = dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))
    assert {name: shown[name] for name in WORTH} == {
        name: decimals(one[column][number if column in LEARNED else place]) for name, column in WORTH.items()
    }
    assert shown["version"] == str(one["versions"][place])


WORTH = {
    "logprob": "behavior_logprobs",
    "reward": "rewards",
    "learner": "logprobs",
    "imitation": "reference_logprobs",
    "value": "own_values",
    "P(write)": "write_probabilities",
    "advantage": "advantages",
}
LEARNED = ("logprobs", "reference_logprobs", "own_values", "write_probabilities", "advantages")
"""Columns with a value for each action token; others have one for each token."""
WHY = ("and the session read it", "but the session read nothing", "but the session read other entries")


def _lines(path):
    """One dict for each session, which has one line in these files."""
    found = pq.read_table(path).to_pylist()
    assert all(one["last"] and one["index"] == 0 for one in found)
    return found


def is_wrong(one):
    return one["ending"] != "failed" and not one["correct"]


def result(one):
    if one["ending"] == "failed":
        return "failed"
    if one["correct"]:
        return "right"
    return "asked, still wrong" if one["receipts"] else "predicted wrong"


def why(one):
    writers = {use["writer"] for use in one["reads"]}
    if writers & set(one["same_item"]):
        return WHY[0]
    return WHY[2] if writers else WHY[1]


def memory(one):
    return sum(size for _, size in one["memory_sizes"])


def reward(one):
    return one["correct"] - sum(receipt["price"] for receipt in one["receipts"]) / 1000


def asking(one):
    return max(probability for probability in one["ask_probabilities"] if probability is not None)


def at(found, stream, position):
    [one] = [one for one in found if (one["stream"], one["position"]) == (stream, position)]
    return one


def readers(writer, found):
    """The later sessions that read an entry of this one."""
    return [
        one
        for one in found
        if one["stream"] == writer["stream"]
        and one["position"] > writer["position"]
        and any(use["writer"] == writer["position"] for use in one["reads"])
    ]


def served_by(writer, found):
    """The readers that answered right without asking."""
    return [one for one in readers(writer, found) if result(one) == "right" and not one["receipts"]]


def stretches(one):
    """The token ids of each turn, and of what was read between two turns."""
    found = groupby(zip(one["turn_ids"], one["token_ids"], strict=True), key=lambda pair: pair[0])
    return [[token for _, token in pairs] for _, pairs in found]


def mean(values):
    found = list(values)
    return sum(found) / len(found)


def decimals(value):
    """With three decimals, and no minus before zero."""
    text = f"{value:.3f}"
    return text.removeprefix("-") if float(text) == 0 else text


def amount(value):
    return f"{round(value, 3):g}"


def sessions(number):
    return f"{number} session{'' if number == 1 else 's'}"
