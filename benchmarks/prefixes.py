"""How many prompt tokens a prefix cache can serve at best, computed from the token ids alone.

The cache keeps whole blocks, forgets nothing, and finds a block by the block and all before it. It holds what earlier
requests computed: their prompts, and their completions but for the last token, whose keys and values no step computes.
Of a prompt, the last token is always computed, because its logits are wanted.
"""

from collections.abc import Iterable, Iterator, Sequence

from agile_ray.types import Session, Turn


def cached_at_best(turns: Iterable[Turn], *, block: int) -> int:
    """Prompt tokens that a cache with nothing in it at first serves to these requests, in this order.

    Args:
        block: tokens of one block.
    """
    known: set[tuple[int, ...]] = set()
    total = 0
    for turn in turns:
        prompt = turn.prompt_ids.tolist()
        computed = [*prompt, *turn.completion_ids.tolist()][:-1]
        total += _hits(prompt[:-1], known, block=block)
        known.update(_chains(computed, block=block))
    return total


def by_turn(lanes: Sequence[Sequence[Session]]) -> Iterator[Turn]:
    """The turns of all lanes as an engine gets them: the first of each lane, then the second of each, and so on."""
    queues = [[turn for session in sessions for turn in session.turns] for sessions in lanes]
    for number in range(max(map(len, queues), default=0)):
        yield from (queue[number] for queue in queues if number < len(queue))


def _chains(ids: Sequence[int], *, block: int) -> Iterator[tuple[int, ...]]:
    """Every run of whole blocks from the start; a run stands for its last block."""
    for end in range(block, len(ids) + 1, block):
        yield tuple(ids[:end])


def _hits(ids: Sequence[int], known: set[tuple[int, ...]], *, block: int) -> int:
    found = 0
    for chain in _chains(ids, block=block):
        if chain not in known:
            break
        found = len(chain)
    return found
