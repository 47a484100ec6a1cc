# SPDX-License-Identifier: BSD-2-Clause
"""Results as a part would measure them, of a machine whose noise one knows."""
import random

from benchlib.results import Results

JOBS = [f"job-{number}" for number in range(20)]
OURS = ["dma", "copy", "uring"]
# A distribution up to 0.9994 of all requests, and then all of them.
CURVE = [[10 * 1.01**step, 1 - 0.5**(step / 28)] for step in range(300)] + [[9999, 1]]
CONTROLS = ["blkback", "xen-block"]


def results(seed, noise=0.03, rounds=5, faster=None, drift=1.0):
    """A run: requests a second that differ by NOISE from round to round, and what follows.

    FASTER is {(job, way): factor} of what was planted; DRIFT what the whole machine is faster by.
    """
    dice = random.Random(seed)
    run = Results("lab", {"controls": CONTROLS})
    for round_nr in range(1, rounds + 1):
        for place, job in enumerate(JOBS):
            for way in OURS + CONTROLS:
                factor = (faster or {}).get((job, way), 1) * drift
                iops = (1000 + 500 * place) * factor * dice.lognormvariate(0, noise)
                run.add(job, way, round_nr, {"iops": iops, "p50_us": 32e6 / iops,
                                             "dom0_us": 5e5 / iops * dice.lognormvariate(0, noise)})
    return run
