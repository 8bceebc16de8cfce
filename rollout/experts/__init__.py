"""Experts of this project, and how a configuration chooses one. docs/experts.md describes each."""

from pathlib import Path
from typing import cast

from agile_ray.agent.expert import COLLEAGUE, Expert, GoldExpert, Panel
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from agile_ray.expert_spec import ExpertSpec
from agile_ray.inbox.client import InboxExpert
from agile_ray.inbox.recorded import RecordedInbox
from agile_ray.plugins.resolver import built, resolve
from agile_ray.replay.expert import RecordedExpert
from envs.endpoints.chat import CONCURRENT, Chat
from rollout.experts.chat import ChatExpert
from rollout.experts.fallible import FallibleExpert
from rollout.experts.http import HttpExpert
from rollout.experts.spending import Spending

NEEDED = ("source", "reliability", "advise")
"""What an expert has."""


def build_expert(env: Env, *, deadline_s: float = 30.0, opens: bool = True, seed: int = 0) -> Expert:
    """Build the expert that `env.expert` chooses, and its colleague. One that lies elsewhere is called as `build(env)`.

    Args:
        env: chooses the expert.
        deadline_s: longest wait for one answer, retries included.
        opens: open its files, or make them; False: it is only looked at.
        seed: root seed of the run, from which the mistakes of a fallible expert are drawn.

    Raises:
        ConfigError: no expert has this name, it is none, a file of it can't be used, or the recorded run holds no
            segments or another version's.
    """

    def build(spec: ExpertSpec, to: str) -> Expert:
        shown = spec if opens else spec.model_copy(update={"cache": None})
        return _fallible(_built(shown, env, to=to, deadline_s=deadline_s), spec, seed=seed)

    expert = build(env.expert, "")
    if env.expert.colleague is None:
        return expert
    return Panel({"": expert, COLLEAGUE: build(env.expert.colleague, COLLEAGUE)})


def _fallible(expert: Expert, spec: ExpertSpec, *, seed: int) -> Expert:
    if not (spec.wrong or spec.abstains):
        return expert
    return FallibleExpert(expert, wrong=spec.wrong, abstains=spec.abstains, seed=seed)


def _built(spec: ExpertSpec, env: Env, *, to: str, deadline_s: float) -> Expert:
    if spec.recorded is not None:
        return read_recording(spec.recorded, to=to)
    if spec.name == "gold":
        return GoldExpert()
    if spec.name == "http":
        return HttpExpert(_given(spec.url), deadline_s=deadline_s, reliability=spec.reliability)
    if spec.name == "inbox":
        wait_s = deadline_s if spec.deadline_s is None else spec.deadline_s
        return InboxExpert(_given(spec.url), deadline_s=wait_s, reliability=spec.reliability)
    if spec.name == "chat":
        return ChatExpert(
            Chat(url=_given(spec.url), model=_given(spec.model), deadline_s=deadline_s, name="expert chat"),
            Spending(
                spec.cache, asks=f"{spec.url}#{spec.model}", limit=spec.tokens, wait_s=deadline_s, at_once=CONCURRENT
            ),
            reliability=spec.reliability,
        )
    return _from_elsewhere(spec.name, env)


def read_recording(path: Path, *, to: str = "") -> RecordedExpert | RecordedInbox:
    """What repeats the answers of a past run, a folder, or of an inbox, whose export is a file.

    Args:
        path: of the recording.
        to: whose answers, as `AskKey.to`.

    Raises:
        ConfigError: it holds none.
    """
    return RecordedInbox(path, to=to) if path.is_file() else RecordedExpert(path, to=to)


def _from_elsewhere(name: str, env: Env) -> Expert:
    build = resolve(name, key="env.expert", kind="experts", built_in={})
    if not callable(build):
        raise ConfigError(f"env.expert: {name} must be a function build(env), found {build!r}")
    expert = built(lambda: build(env), name=name, key="env.expert", built_in={})
    missing = [one for one in NEEDED if not hasattr(expert, one)]
    if missing:
        raise ConfigError(
            f"env.expert: {name} must build an expert with {', '.join(NEEDED)}, found {expert!r} without "
            f"{', '.join(missing)}"
        )
    return cast(Expert, expert)


def _given(value: str | None) -> str:
    assert value is not None, "the schema of env.expert refuses an endpoint without it"
    return value
