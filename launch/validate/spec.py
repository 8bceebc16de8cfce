"""Checks a spec as far as that is possible without starting anything.

    the file            keys, types, contradictions, includes, axes                     agile_ray/config_file.py
    each of its runs    the run's folder, model, data, environment, expert, embedder    what a training checks first
                        lengths: sessions fit the model, a micro-batch and the cache
                        machines: GPUs, cores and memory are there                      launch/plan
    on a cluster        paths are absolute, and exist there, by its dashboard

What several runs have in common is checked once. What can't be seen from here is listed as unchecked.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import envs
from agile_ray.agent.environment import taught_split
from agile_ray.agent.functions import PAPER
from agile_ray.config import RunConfig
from agile_ray.credit.fitted import check_windows
from agile_ray.errors import AgileError, ConfigError
from agile_ray.record.folder import RunFolder
from agile_ray.record.resume import check_record
from agile_ray.scripted.demonstration_file import Refused, read
from agile_ray.scripted.demonstrations import NAMED
from launch.cluster.address import check_shared, joins
from launch.cluster.dashboard import Dashboard
from launch.models.folder import check_model, lacking_functions
from launch.plan.fit import fit
from launch.plan.machines import Node
from launch.plan.network import read_network
from launch.run import final_comparison, preflight
from launch.run.finished import check_resumable
from launch.run.shipped_configs import spec as read_spec
from launch.run.sweep_plan import plan
from rollout.experts import build_expert
from rollout.rules import check_embedder, toolless


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the runs are to run."""

    nodes: Sequence[Node]
    dashboard: Dashboard | None = None  # of a running cluster
    elsewhere: bool = False  # on a cluster; its paths can't be seen from here

    def joins(self, config: RunConfig) -> bool:
        """Whether a run joins a cluster."""
        return self.elsewhere or self.dashboard is not None or joins(config.cluster)

    def sees(self, config: RunConfig) -> bool:
        """Whether the paths of a run can be seen from here."""
        if self.dashboard is not None:
            return self.dashboard.is_here
        return not self.joins(config)


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was found about one spec."""

    name: str
    runs: int = 0
    faults: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    configs: list[RunConfig] = field(default_factory=list)


READ_S = 1.5
"""Time after which no further stream of an environment is read, seconds."""

Check = tuple[str, Callable[[], None]]
"""What a check depends on, as text, and the check. It raises an AgileError."""


def check_spec(name: str, overrides: Sequence[str], target: Target) -> Findings:
    """Check one spec.

    Args:
        name: of a shipped spec, or a path.
        overrides: for every run.
        target: where it is to run.
    """
    found = Findings(name=name)
    try:
        read = read_spec(name)
        if read.axes.vary:
            found.configs = [job.config for job in plan(read.path, read, overrides)]
        else:
            found.configs = [read.resolve(overrides)]
    except AgileError as error:
        found.faults.append(str(error))
        return found
    found.runs = len(found.configs)
    seen: set[str] = set()
    for config in found.configs:
        for depends_on, check in _checks(config, target, found):
            if depends_on in seen:
                continue
            seen.add(depends_on)
            try:
                check()
            except AgileError as error:
                found.faults.append(str(error))
    found.faults = list(dict.fromkeys(found.faults))
    _look_at_paths(found, target)
    return found


def _checks(config: RunConfig, target: Target, found: Findings) -> Iterator[Check]:
    env, model = config.env.model_dump_json(), str(config.model.path)
    colleague = config.env.expert.colleague is not None
    if target.joins(config):
        yield "shared" + env + model + str(config.run.folder), lambda: check_shared(config)
    yield "engines" + config.rollout.dtype + config.cluster.device, lambda: preflight.check_engines(config)
    yield "path" + model, lambda: preflight.check_engine_path("model.path", config.model.path)
    if not target.sees(config):
        if config.memory.embedder != "hashed":
            found.unchecked.append(f"memory.embedder: {config.memory.embedder} is loaded by the cluster's nodes")
        if config.env.data is None and not config.env.expert.recordings:
            yield f"env{env}{config.seed}", lambda: _check_environment(config, found, model=None)
        return
    yield "embedder" + config.memory.embedder, lambda: check_embedder(config.memory.embedder)
    yield f"run{config.run_folder}", lambda: _check_run(config)
    yield (
        f"env{env}{config.seed}{config.credit}{config.evaluate}{model}",
        lambda: _check_environment(config, found, model=config.model.path),
    )
    yield f"demonstrations{config.imitation.demonstrations}", lambda: _check_demonstrations(config, found)
    yield f"recorded{config.env.expert.recordings}", lambda: preflight.check_recorded(config.env.expert)
    yield (
        f"model{model}{config.agent.session_tokens}{colleague}",
        lambda: check_model(config.model.path, session_tokens=config.agent.session_tokens, colleague=colleague),
    )
    yield (
        f"room{model}{config.agent}{config.learner}{config.rollout}{config.cluster}",
        lambda: _check_machines(config, target),
    )


def _check_run(config: RunConfig) -> None:
    run = RunFolder.of(config)
    check_resumable(config)
    check_record(run, run.sft)
    if config.model.path.is_dir():
        preflight.check_resumed(config)
    preflight.check_space(config.run.folder, need_bytes=preflight.SPARE_BYTES)


def _check_environment(config: RunConfig, found: Findings, *, model: Path | None) -> None:
    """Read streams of every split, for READ_S seconds, so that large data are checked in part.

    Args:
        config: of a run.
        found: gets what is left unchecked.
        model: the folder whose tokenizer must have the function of the environment's tool; None: it is elsewhere.
    """
    build_expert(config.env, opens=False)
    environment = envs.build(config.env, seed=config.seed)
    search = environment.search_function
    if model is not None and (model / "tokenizer.json").is_file():
        lacking = lacking_functions(model, (*PAPER, search))
        if lacking == [search.value]:  # of the others check_model says so
            raise toolless(model, search)
    begin, left = time.monotonic(), 0
    kinds: set[str] = set()
    for split in dict.fromkeys((taught_split(environment), "train", "validation", final_comparison.SPLIT)):
        lengths: list[int] = []
        for index in range(environment.streams(split) or 1):
            if time.monotonic() - begin > READ_S:
                left += 1
            else:
                questions = environment.stream(split=split, index=index).questions
                lengths.append(len(questions))
                kinds.update(question.kind for question in questions)
        if split == "train" and lengths:
            check_windows(config, stream_length=max(lengths))
    if left:
        found.unchecked.append(f"env.data: {left} streams were not read within {READ_S:g} s; a training reads all")
        return
    _check_kinds(config, kinds)
    recordings = config.env.expert.recordings.values()
    if all(path.is_file() or RunFolder(path).stored_iterations() for path in recordings):
        final_comparison.check_advice(config, environment)


def _check_kinds(config: RunConfig, kinds: set[str]) -> None:
    """Refuse a price of questions that the environment does not have."""
    for key, expert in config.env.expert.by_key.items():
        unmet = sorted(expert.price.kinds.keys() - kinds)
        if unmet:
            raise ConfigError(
                f"{key}.price.kinds: the kinds of questions of {config.env.name} are {', '.join(sorted(kinds))}, found "
                f"{', '.join(unmet)}"
            )


def _check_demonstrations(config: RunConfig, found: Findings) -> None:
    """Refuse a file of demonstrations with lines that are none; a training also plays them."""
    file = config.imitation.demonstrations
    if file is None:
        return
    refused = [f"{file}:{one.line}: {one.reason}" for _, one in read(file) if isinstance(one, Refused)]
    if refused and not config.env.skip_bad:
        raise ConfigError(f"{'; '.join(refused[:NAMED])}; mend or remove these lines, or set env.skip_bad=true")
    found.unchecked.append(f"imitation.sessions: the sessions of {file} are played when a training starts")


def _check_machines(config: RunConfig, target: Target) -> None:
    """Refuse what certainly does not fit: without the logits, of which a spec alone does not say how many there are."""
    if not (config.model.path / "config.json").is_file():
        return  # check_model says so
    found = fit(
        config, read_network(config.model.path), target.nodes, action_share=0.0, count_cores=target.joins(config)
    )
    if found.problems:
        raise ConfigError("; ".join(found.problems))


def _look_at_paths(found: Findings, target: Target) -> None:
    """Ask the cluster for the paths that can't be seen from here; without one, list them."""
    paths: dict[str, str] = {}
    for config in found.configs:
        named = {
            "model.path": config.model.path,
            "env.data": config.env.data,
            **config.env.expert.recordings,
            "imitation.sessions": config.imitation.demonstrations,
        }
        if not target.sees(config):
            paths |= {str(path): key for key, path in named.items() if path is not None}
        if config.env.judge is not None:
            found.unchecked.append(f"env.judge: {config.env.judge} is asked when sessions are judged")
        for key, expert in config.env.expert.by_key.items():
            if expert.url is not None:
                found.unchecked.append(f"{key}: {expert.name} at {expert.url} is asked when the agent asks")
    if paths and target.dashboard is not None and not found.faults:
        missing = target.dashboard.missing([path for path in paths if Path(path).is_absolute()])
        if missing is not None:
            found.faults += [
                f"{paths[path]}: the cluster has no {path}; put it on the disk that its nodes share" for path in missing
            ]
            return
    found.unchecked += [f"{key}: {path} is on the cluster" for path, key in paths.items()]
    found.unchecked = list(dict.fromkeys(found.unchecked))
