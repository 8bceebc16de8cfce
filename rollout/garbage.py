"""How often Python looks for cyclic garbage in the processes that hold many lanes.

A full look visits every object that is there: those of the imported libraries, which never go, and the sessions and
memories of all lanes. Left as it is, Python looks the more often the more is alive, so a turn costs more with many
lanes than with few. Lanes leave hardly any cycles: what they drop is freed at once, without a look.
"""

import gc

YOUNG = 10_000
"""New objects after which Python looks at them; it looks at all after a hundred times as many."""


def look_rarely() -> None:
    """Look rarely from now on, and never again at what is alive now. Call it once everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
