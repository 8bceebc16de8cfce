"""Advantage formulas that fail on episodes of many turns, so that tests can show that they would be caught.

The first four restate, in our own words and code, what trainers in use elsewhere compute; the last two are slips that
are easy to make. All read whole sessions, observation tokens included, and return advantages of the action tokens.

                         an observation token        a turn ends                 where
    zeroed_observations  is a step of value 0        nowhere                     OpenRLHF
    valued_observations  is a step with a value      nowhere                     SkyRL, slime
    reward_turns         is skipped                  where a reward is           RAGEN, two levels
    turn_steps           is skipped                  where the turn id changes   AReaL, a step per turn
    turn_distances       is skipped                  nowhere                     turn ids used as time
    one_session          is skipped                  nowhere                     packed sessions run into one another

T = tokens of one or more sessions, A = action tokens among them.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from agile_ray.types import Mask

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Concatenated sessions, with what the executor wrote in between."""

    rewards: Float64  # [T], received after the token; 0.0 off the mask
    values: Float64  # [T], of the state before the token; anything off the mask
    action_mask: Mask  # [T], True where the policy wrote the token
    session_ids: Int64  # [T]
    turn_ids: Int64  # [T], NO_TURN off the mask

    def take(self, indices: Int64 | Mask) -> "Tokens":
        """Keep some of the tokens."""
        return Tokens(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})

    def sessions(self) -> list["Tokens"]:
        """Split where the session id changes."""
        ends = np.flatnonzero(np.diff(self.session_ids)) + 1
        return [self.take(indices) for indices in np.split(np.arange(len(self.rewards)), ends)]


Estimator = Callable[[Tokens, float, float], Float64]
"""Takes tokens [T], discount and gae_lambda; returns the advantages of the action tokens [A]."""


def by_session(formula: Estimator) -> Estimator:
    """Apply the formula to one session at a time, so that it fails only for its own fault."""

    def estimate(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
        return np.concatenate([formula(session, discount, gae_lambda) for session in tokens.sessions()])

    estimate.__name__ = formula.__name__
    return estimate


def plain(rewards: Float64, values: Float64, discount: float, gae_lambda: float) -> Float64:
    """GAE over the given steps, whatever they are."""
    advantages = np.zeros(len(rewards))
    next_value = next_advantage = 0.0
    for index in reversed(range(len(rewards))):
        td_error = rewards[index] + discount * next_value - values[index]
        next_advantage = advantages[index] = td_error + discount * gae_lambda * next_advantage
        next_value = values[index]
    return advantages


@by_session
def zeroed_observations(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
    """Every token is a step, and observation tokens have value 0.

    A turn's last token is followed by an observation, so it bootstraps from 0. Credit decays over tokens that the
    policy did not choose.
    """
    acted = tokens.action_mask
    return plain(tokens.rewards * acted, tokens.values * acted, discount, gae_lambda)[acted]


@by_session
def valued_observations(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
    """Every token is a step, also observations, whose values the critic was never trained on."""
    return plain(tokens.rewards, tokens.values, discount, gae_lambda)[tokens.action_mask]


@by_session
def reward_turns(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
    """GAE over turns, then over the tokens of each turn, where a turn is taken to end at every reward other than 0.

    A turn that earns 0 is merged with the next one.

    Raises:
        IndexError: the last turn earned 0, so its last token looks for one after it.
    """
    rewards, values = tokens.rewards[tokens.action_mask], tokens.values[tokens.action_mask]
    ends = np.flatnonzero(rewards)
    targets = rewards.copy()
    targets[ends] = values[ends] + plain(rewards[ends], values[ends], discount, gae_lambda)
    advantages = np.zeros(len(rewards))
    next_advantage = 0.0
    for index in reversed(range(len(rewards))):
        if index in ends:
            next_value = next_advantage = 0.0
        else:
            next_value = values[index + 1]
        td_error = targets[index] + discount * next_value - values[index]
        next_advantage = advantages[index] = td_error + discount * gae_lambda * next_advantage
    return advantages


@by_session
def turn_steps(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
    """One step per turn, whose tokens share its advantage. Sound, but credit depends on how text is cut into turns."""
    acted = tokens.take(tokens.action_mask)
    begins = np.flatnonzero(np.diff(acted.turn_ids, prepend=-1))
    turns = plain(np.add.reduceat(acted.rewards, begins), acted.values[begins], discount, gae_lambda)
    return np.repeat(turns, np.diff([*begins, len(acted.rewards)]))


@by_session
def turn_distances(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
    """Steps are tokens, but credit also decays by the distance between their turn ids."""
    acted = tokens.take(tokens.action_mask)
    advantages = np.zeros(len(acted.rewards))
    next_value = next_advantage = 0.0
    for index in reversed(range(len(acted.rewards))):
        td_error = acted.rewards[index] + discount * next_value - acted.values[index]
        distance = 1 + np.diff(acted.turn_ids, append=acted.turn_ids[-1])[index]
        next_advantage = advantages[index] = td_error + (discount * gae_lambda) ** distance * next_advantage
        next_value = acted.values[index]
    return advantages


def one_session(tokens: Tokens, discount: float, gae_lambda: float) -> Float64:
    """Steps are the action tokens, but a session's last one bootstraps from the first of the next session."""
    acted = tokens.take(tokens.action_mask)
    return plain(acted.rewards, acted.values, discount, gae_lambda)
