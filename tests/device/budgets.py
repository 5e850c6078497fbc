"""What a third round may cost on an accelerator, one line per strategy, and what is let pass by name.

The task is that of `rounds.py`: 400 items, 16 features, 10 classes, 20 picks a round, logistic head, float32 for one
replicate and float64 for five, whose picks are the CPU's; the round is query, fit and measures. `python -m
device.rounds NAME` prints today's line: whoever launches less lowers it here.
"""

BUDGETS = {
    "alfamix": (765, 2105, 135),
    "badge": (465, 930, 70),
    "bait": (2450, 8900, 105),
    "bald": (575, 1255, 20),
    "batchbald": (1800, 5600, 165),
    "boss": (2000, 6600, 325),
    "cal": (445, 625, 30),
    "clue": (765, 2200, 135),
    "cluster_margin": (420, 435, 30),
    "cog": (420, 510, 30),
    "coreset": (540, 610, 26),
    "dbal": (635, 1540, 20),
    "dcom": (900, 2040, 53),
    "dropquery": (835, 2550, 130),
    "entropy": (410, 410, 20),
    "epig": (600, 1465, 95),
    "facility_location": (620, 820, 62),
    "falcun": (560, 640, 21),
    "filtered": (7600, 36000, 1450),
    "graph_cut": (570, 810, 56),
    "log_det": (630, 1010, 56),
    "margins": (410, 410, 20),
    "maxherding": (600, 670, 32),
    "parbals_epig": (5200, 23000, 710),
    "pcoreset": (620, 1050, 41),
    "powerbald": (1100, 2450, 57),
    "powerentropy": (935, 1450, 54),
    "powermargins": (935, 1600, 56),
    "probcover": (470, 510, 35),
    "qbc": (1950, 7200, 205),
    "random": (890, 1450, 40),
    "switched": (2600, 9100, 110),
    "tcm": (1530, 6095, 183),
    "typiclust": (1525, 6090, 182),
    "uherding": (1050, 1350, 46),
    "uncertainty": (925, 1450, 48),
    "vaal": (3650, 15500, 82),
    "vessal": (600, 710, 31),
}
"""Strategy -> (launches with one replicate, launches with five, waits of the host with five)."""

WAITS = 60
"""Of the host in a third round with one replicate, for forms of a strategy that have no line of their own."""

OTHER_PICKS: dict[str, str] = {}
"""Strategies that pick other items than on the CPU, and why."""

UNORDERED: dict[str, str] = {
    "acquisition.py _vote_shares": "ones: exact in any order",
    "geometry/submodular.py determinant_information": "one number to one place",
    "strategies/bait/class_wise.py factor": "one number to a place",
    "heads/neighbours.py _votes": "one number to a place in each call",
}
"""Places with float sums in no promised order, and why no bit depends on it."""
