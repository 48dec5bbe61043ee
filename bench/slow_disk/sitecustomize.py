"""Put on PYTHONPATH by chaos.py: a disk that takes its time. Every fsync and every rename waits at random."""

import os
import random
import time

_draw = random.Random(os.environ.get("FANGCUN_CHAOS_SEED", "0") + str(os.getpid()))


def _slowly(call):
    def slow(*arguments, **more):
        time.sleep(_draw.uniform(0, 0.1))
        return call(*arguments, **more)

    return slow


if "RANK" in os.environ:  # the ranks, not torchrun
    os.fsync, os.rename, os.replace = (_slowly(call) for call in (os.fsync, os.rename, os.replace))
