"""The model of large clusters: its arithmetic on figures that are easy to compute by hand."""

import json
import math
from dataclasses import replace

import pytest

from benchmarks.cluster_model import Actor, digest, work_of
from launch.plan.network import read_network
from launch.plan.speed import Hardware, OwnCosts, Speeds, Work, iteration, speeds
from launch.run.shipped_configs import read
from tests.launch.test_plan import LLAMA_8B

HARDWARE = Hardware(
    flops=1e15, flops_share=0.5, memory=4e12, memory_share=0.5, link=4e11, network=8e10, gpus_per_node=8
)
OWN = OwnCosts(driver_s=1e-3, agent_s=1e-4, pack=1e9, call_s=0.0)
WORK = Work(lanes=10, sessions=4, tokens=200.0, actions=50.0, spread=0.0, epochs=2, steps=0)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return read_network(folder)


def test_speeds_follow_from_parameters_and_rates(network):
    count = network.parameters
    found = speeds(network, HARDWARE, WORK, OWN)
    assert found.learned == pytest.approx(0.5e15 / (6 * count))
    assert found.scored == pytest.approx(0.5e15 / (4 * count))
    step_s = (2 * count + 10 * 100 * 131_072) / 2e12
    session_s = 50 * step_s / 10 + 150 * 2 * count / 0.5e15
    assert found.sessions == pytest.approx(1 / session_s)
    slow = speeds(network, HARDWARE, WORK, replace(OWN, agent_s=2.0))
    assert slow.sessions == 0.5  # the event loop is the slower one


def test_phases_add_up_in_turn_and_overlap_otherwise(network):
    found = Speeds(sessions=20.0, scored=1e4, learned=4e3)
    one = iteration(network, found, HARDWARE, WORK, OWN, actors=3, ranks=2)
    assert one.sessions == 120
    assert one.collect == pytest.approx(40 / 20)
    assert one.driver == pytest.approx(0.12)
    assert one.learn == pytest.approx(24000 / 2e4 + 2 * 24000 / 8e3)
    size = 2 * network.parameters
    assert one.publish == pytest.approx(2 * size / 1e9 + size / 8e10)
    assert one.seconds(overlapped=False) == pytest.approx(one.collect + one.driver + one.learn + one.publish)
    assert one.seconds(overlapped=True) == pytest.approx(one.driver + one.learn + one.publish)
    assert one.engines_idle(overlapped=False) == pytest.approx(1 - one.collect / one.seconds(overlapped=False))
    assert one.learners_idle(overlapped=True) == pytest.approx(1 - one.learn / one.seconds(overlapped=True))


def test_the_slowest_of_many_lanes_ends_a_collection(network):
    found = Speeds(sessions=20.0, scored=1e4, learned=4e3)
    uneven = replace(WORK, spread=0.5)
    one = iteration(network, found, HARDWARE, uneven, OWN, actors=3, ranks=2)
    assert one.collect == pytest.approx(2 * (1 + 0.5 * math.sqrt(2 * math.log(30) / 4)))


def test_gradients_between_nodes_travel_over_the_network(network):
    found = Speeds(sessions=20.0, scored=math.inf, learned=math.inf)
    step = replace(WORK, steps=1)
    within, between = (iteration(network, found, HARDWARE, step, OWN, actors=1, ranks=ranks).learn for ranks in (8, 16))
    assert within == pytest.approx(2 * 7 / 8 * 4 * network.parameters / 4e11)
    assert between == pytest.approx(2 * 15 / 16 * 4 * network.parameters / 1e10)


def test_the_benchmark_plays_the_sessions_that_it_counts():
    import pickle

    config = read("quickstart", ["loop.lanes=3", "loop.sessions_per_lane=2"])
    played = Actor(config, number=1, lanes=3, speed=1e6).play(2)
    work = work_of(config, played)
    count, tokens = digest([pickle.dumps(played[:4]), pickle.dumps(played[4:])], config)
    assert (count, tokens) == (6, round(6 * work.tokens))
    assert (work.lanes, work.sessions, work.steps) == (3, 2, 4)
    assert 0 < work.actions < work.tokens
