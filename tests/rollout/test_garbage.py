"""What is alive when looking becomes rare is not looked at again."""

import gc

from rollout.garbage import YOUNG, look_rarely


def test_what_is_alive_is_not_looked_at_again_and_what_comes_is_looked_at_rarely():
    before = gc.get_threshold()
    try:
        look_rarely()
        assert gc.get_threshold() == (YOUNG, 10, 10)
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
