"""What a report says at its top of runs that went wrong, and that it says nothing of a run that did not."""

import re
from html import unescape

import pytest

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.evaluation.score import score
from agile_ray.record.history import Event, Line
from agile_ray.types import Ending
from launch.report.findings.warnings import collapse, failed, spikes, warnings
from launch.report.page.run_page import render
from launch.report.summary import build
from launch.report.tables import show
from tests.fakes.played import PLAYED, played
from tests.fakes.worlds import changed

DOWN = "ExpertError: expert http: [Errno 111] connection refused"
HEALTHY = {"kl_nats": 0.05, "update_kl_nats": 0.01, "asked_share": 0.3, "total_score": 0.7, "accuracy": 0.8}


def history(count=10, *, lost=None, **changes):
    """Iterations of a healthy run; `changes` has the values of a metric by iteration, `lost` the failed sessions."""
    lines = []
    for iteration in range(1, count + 1):
        own = {name: values[iteration] for name, values in changes.items() if iteration in values}
        number = (lost or {}).get(iteration, 0)
        lines.append(
            Line(
                event=Event.ITERATION,
                name="",
                imitation_steps=1,
                iteration=iteration,
                version=iteration,
                metrics=HEALTHY | {"sessions": 100.0 - number, "failed": float(number)} | own,
                counts={f"failed/{DOWN}": number} if number else {},
                dropped=(),
                seconds={},
            )
        )
    return lines


def evaluated():
    return {name: played(name) for name in PLAYED}


def page(lines, results):
    """The sentences at the top of a run's page."""
    config = RunConfig(run=Run(name="r", folder="runs"), model=Model(path="m"), env=Env(name="shop"))
    text = render(build(results, config=config, lines=lines, starts=[]))
    top = re.search(r'<h1>.*?</h1>\s*<div class="warnings" role="alert">(.*?)</div>', text, re.DOTALL)
    return [unescape(sentence) for sentence in re.findall(r"<p>(.*?)</p>", top[1])] if top else []


def test_a_healthy_run_has_no_warning():
    assert page(history(), evaluated()) == []
    assert warnings([], {}) == []


def test_the_page_of_a_run_that_collapsed_to_always_asking_says_so():
    rising = {iteration: min(1.0, 0.2 * iteration) for iteration in range(1, 11)}
    results = evaluated() | {"ppo": played("always_ask")}
    assert page(history(asked_share=rising), results) == [
        "The policy collapsed to always asking: from iteration 5 on it asks in at least 99% of the sessions, where the "
        "oracle asks in 25%."
    ]


def test_the_page_of_a_run_whose_expert_was_down_says_so():
    lost = dict.fromkeys(range(4, 8), 90)
    silent = dict.fromkeys(range(4, 8), 0.0)  # those that asked have failed
    broken = [changed(one, ending=Ending.FAILED, error=DOWN) for one in played("always_ask")[:3]]
    results = evaluated() | {"ppo": [*broken, played("ppo")[3]]}
    assert page(history(lost=lost, asked_share=silent), results) == [
        f"The expert failed in training, iterations 4 to 7: 360 of 1,000 sessions (36%) by {DOWN}.",
        f"The expert failed in evaluation ppo: 3 of 4 sessions (75%) by {DOWN}.",
    ]


def test_a_broken_expert_is_no_collapse_to_never_asking():
    lost = dict.fromkeys(range(4, 11), 40)
    assert collapse(history(lost=lost, asked_share=dict.fromkeys(range(4, 11), 0.0)), {}) is None


def test_the_page_of_a_run_whose_kl_spiked_says_so():
    assert page(history(kl_nats={6: 0.2, 7: 0.41}), evaluated()) == [
        "The KL to the SFT policy spiked: 0.41 nats per token at iteration 7, where the median is 0.05 (likewise high "
        "at 6); the policy may have lost what imitation taught it."
    ]


def test_a_spike_of_one_update_is_named():
    (found,) = spikes(history(update_kl_nats={3: 0.37}))
    assert found.startswith(
        "The KL of one update spiked: 0.37 nats per token at iteration 3, where the median is 0.01;"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"kl_nats": {i: 0.05 * i for i in range(1, 11)}},  # it grows steadily
        {"kl_nats": {5: 0.14}},  # a jump, but small
        {"kl_nats": dict.fromkeys(range(1, 11), 0.3)},  # high, but the same all the time
    ],
)
def test_growth_and_small_jumps_are_no_spikes(changes):
    assert spikes(history(**changes)) == []


def test_asking_never_is_a_collapse_only_if_the_oracle_asks():
    lines = history(asked_share=dict.fromkeys(range(6, 11), 0.0))
    assert collapse(lines, {}).startswith(
        "The policy collapsed to never asking: from iteration 6 on it asks in at most 1%"
    )
    thrifty = {"oracle": score(played("never_ask"))}
    assert collapse(lines, thrifty) is None
    assert collapse(lines, {"oracle": score(played("oracle"))}).endswith("where the oracle asks in 25%.")


def test_two_last_iterations_are_no_collapse():
    assert collapse(history(asked_share={9: 1.0, 10: 1.0}), {}) is None
    assert collapse(history(asked_share={5: 1.0, 6: 1.0, 7: 1.0}), {}) is None


def test_a_chosen_policy_that_never_asks_is_named_although_sampling_still_asks():
    scores = {"ppo": score(played("never_ask")), "oracle": score(played("oracle"))}
    assert collapse(history(), scores).startswith(
        "The chosen policy is one of never asking: greedy, it asks in at most 1%"
    )


def test_few_failed_sessions_are_not_worth_a_warning():
    assert failed(history(lost={3: 9}), {}) == []
    (found,) = failed(history(lost={3: 10}), {})
    assert found.startswith("The expert failed in training, iteration 3: 10 of 1,000 sessions (1%)")


def test_the_console_shows_warnings_first(capsys):
    from launch.report.console import plain_console

    config = RunConfig(run=Run(name="r", folder="runs"), model=Model(path="m"), env=Env(name="shop"))
    show(build({}, config=config, lines=history(kl_nats={7: 0.41}), starts=[]), plain_console(width=300))
    assert capsys.readouterr().out.startswith("WARNING: The KL to the SFT policy spiked")
