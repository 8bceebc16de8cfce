"""The teacher's sessions, played here as a run plays them: how many of them imitation learns, and how long they are.

The tokenizer is the model's, or words if there is none. The embedder is the hashed one, since the paper's would load
torch.
"""

from dataclasses import dataclass, replace
from typing import Self

import envs
from agile_ray.agent.environment import Environment, taught_split
from agile_ray.agent.rules import Rules
from agile_ray.config import RunConfig
from agile_ray.evaluation.plays import plays
from agile_ray.scripted.demonstrations import lessons, may_repeat
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.scripted.search_rows import search_rows
from launch.plan.lengths import Lengths, lengths_of
from launch.plan.light_tokenizer import LightTokenizer
from rollout.rules import build_rules

SAMPLED = 96
"""Sessions that are played for their lengths."""
FEW = 400
"""So many sessions of imitation, or fewer, are played, in seconds; of more, each is taken for one that is learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Plays in the environment of a run."""

    config: RunConfig
    environment: Environment
    rules: Rules

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Build the environment.

        Raises:
            AgileError: the environment or its data are not there.
        """
        environment = envs.build(config.env, seed=config.seed)
        rules = build_rules(
            environment,
            env=config.env,
            agent=config.agent,
            memory=config.memory.model_copy(update={"embedder": "hashed"}),
            model=None,
            seed=config.seed,
        )
        if (config.model.path / "tokenizer.json").is_file():
            rules = replace(rules, tokenizer=LightTokenizer(config.model.path))
        return cls(config=config, environment=environment, rules=rules)

    def lengths(self) -> Lengths:
        """Lengths of some sessions of training."""
        imitation, seed = self.config.imitation, self.config.seed
        habits = Habits(seed=seed, asked_share=imitation.asked_share, first=0, asking=imitation.asking)
        policy = reference("teacher", self.environment, habits)
        chosen = plays(self.environment, split="train", sessions=SAMPLED)
        played = play_sessions(policy, self.environment, split="train", plays=chosen, rules=self.rules)
        return lengths_of(played, source=f"{len(played)} sessions of the teacher, played here")

    def rows(self) -> int:
        """Rows that imitation learns: sessions and search rows without those that the run leaves out.

        All sessions are played if they are few, if a file holds them, or if a question comes twice, whose answer is
        learned once. Otherwise only those that run out of a budget would come off.

        Raises:
            AgileError: imitation can't be played.
        """
        imitation, seed = self.config.imitation, self.config.seed
        of_file = imitation.demonstrations is not None
        if of_file or imitation.played <= FEW or may_repeat(imitation, self.environment):
            skip_bad = self.config.env.skip_bad
            found = lessons(
                imitation, self.environment, self.rules, seed=seed, progress=lambda _: None, skip_bad=skip_bad
            )
            return sum(len(batch) for batch in found.batches)
        split = taught_split(self.environment)
        drawn, _ = search_rows(imitation.search_rows, self.environment, self.rules, split=split, seed=seed)
        return imitation.played + len(drawn)
