"""What another policy plays right is written as demonstrations: once, and counted."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agile_ray.agent.functions import Function
from agile_ray.agent.policy import Completion, SessionView
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Imitation, Memory
from agile_ray.errors import ConfigError, EndpointError
from agile_ray.scripted.demonstration_writer import Tally
from agile_ray.scripted.demonstrations import lessons
from agile_ray.scripted.demonstrator import write_right
from agile_ray.scripted.played import STREAMS
from agile_ray.scripted.reader import Scripted, best_guess
from envs.shop import Shop
from tests.fakes.streams import script_rules
from tests.fakes.worlds import completion
from tests.scripted.test_search_rows import FACTS, SEARCHES, Searched

SHOP = Shop(seed=0)


def rules_of(world, **memory: float) -> Rules:
    rules = script_rules(world, agent=Agent(), memory=Memory.model_validate({"threshold": 0.65} | memory))
    return replace(rules, tokenizer=WordTokenizer())


class Guesser:
    """Guesses, asks at every third question, and now and then calls what the rules refuse, or loses its endpoint."""

    def __init__(self, *, lost: bool = False) -> None:
        script = Scripted(lambda view: view.position % 3 == 0, search_function=SHOP.search_function, guess=best_guess)
        self._script, self._lost, self.opened = script, lost, list[str]()

    async def write(self, view: SessionView) -> Completion:
        if view.last is None:
            self.opened.append(f"{view.stream.id}#{view.position}")
        if self._lost and view.position == 1 and view.last is Function.RETRIEVE_MEMORY:
            raise EndpointError("endpoint: status 400")
        if view.position == 2 and len(view.context_ids) == 1:
            return completion("[UpdateMemory]", view.tokenizer)
        return await self._script.write(view)


def play(file: Path, policy: Guesser, rules: Rules, *, sessions: int = 5 * STREAMS) -> Tally:
    return asyncio.run(write_right(file, policy, SHOP, rules, sessions=sessions, progress=lambda _: None))


def test_only_sessions_that_are_right_are_kept_and_the_file_repeats_them(tmp_path: Path):
    file, rules = tmp_path / "new" / "right.jsonl", rules_of(SHOP)
    found = play(file, Guesser(), rules)
    assert found.played == 5 * STREAMS
    assert found.refused["called what the rules refuse"] == STREAMS
    assert found.refused["judged wrong"] > 10
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == found.kept > 2 * STREAMS
    assert len({one["stream"] for one in rows}) == STREAMS
    learned = lessons(Imitation(sessions=file), SHOP, rules, seed=0, progress=lambda _: None)
    assert not learned.left_out
    assert sum(map(len, learned.batches)) == found.kept
    assert f"{found.kept} kept, {found.refused.total()} refused (" in found.said


def test_what_is_played_is_not_played_again(tmp_path: Path):
    file, rules, first = tmp_path / "right.jsonl", rules_of(SHOP), Guesser(lost=True)
    begun = play(file, first, rules, sessions=3 * STREAMS)
    assert len(begun.failed) > 10
    assert "failed (" in begun.said
    assert "EndpointError: endpoint: status 400" in begun.said
    with file.open("ab") as opened:
        opened.write(b'{"stream": 1000000, "quest')  # the writer was killed
    second = Guesser()
    found = play(file, second, rules)
    assert found.played == 5 * STREAMS
    assert not found.failed
    assert len(second.opened) == 2 * STREAMS + len(begun.failed)
    assert found.kept >= begun.kept
    third = Guesser()
    assert play(file, third, rules).said == found.said
    assert third.opened == []
    learned = lessons(Imitation(sessions=file), SHOP, rules, seed=0, progress=lambda _: None)
    assert sum(map(len, learned.batches)) == found.kept


def test_a_file_of_other_settings_is_not_continued(tmp_path: Path):
    file = tmp_path / "right.jsonl"
    play(file, Guesser(), rules_of(SHOP))
    with pytest.raises(ConfigError, match=r"--output: .*right.jsonl:\d+: .* a reply differs; \[GetQuestion\]"):
        play(file, Guesser(), rules_of(SHOP, threshold=-1.0))


def test_a_split_that_ends_is_played_once(tmp_path: Path):
    world = Searched()
    policy = Scripted(lambda view: True, search_function=world.search_function, guess=best_guess)
    found = asyncio.run(
        write_right(tmp_path / "right.jsonl", policy, world, rules_of(world), sessions=1000, progress=lambda _: None)
    )
    assert found.said == f"{FACTS + SEARCHES} kept, 0 refused"
