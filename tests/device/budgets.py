"""What a third round may cost on an accelerator, one line per strategy, and what is let pass by name.

The task is that of `rounds.py`: 400 items, 16 features, 10 classes, 20 picks a round, logistic head, float32 for one
replicate and float64 for five, whose picks are the CPU's; the round is query, fit and measures. `python -m
device.rounds NAME` prints today's line: whoever launches less lowers it here.
"""

BUDGETS = {
    "alfamix": (645, 925, 39),
    "badge": (315, 420, 25),
    "bait": (1800, 7985, 78),
    "bald": (430, 370, 16),
    "batchbald": (1115, 4525, 132),
    "boss": (655, 2115, 202),
    "cal": (300, 455, 21),
    "clue": (650, 735, 40),
    "cluster_margin": (275, 295, 26),
    "cog": (280, 365, 25),
    "coreset": (285, 325, 21),
    "dbal": (490, 1380, 16),
    "dcom": (545, 1480, 43),
    "dropquery": (720, 800, 41),
    "entropy": (265, 265, 15),
    "epig": (455, 1305, 92),
    "facility_location": (300, 385, 42),
    "falcun": (295, 365, 20),
    "filtered": (2565, 13605, 837),
    "graph_cut": (310, 455, 41),
    "log_det": (350, 625, 41),
    "margins": (270, 270, 15),
    "maxherding": (285, 300, 22),
    "parbals_epig": (4640, 22235, 710),
    "pcoreset": (355, 665, 36),
    "powerbald": (440, 380, 21),
    "powerentropy": (275, 280, 20),
    "powermargins": (275, 280, 20),
    "probcover": (250, 270, 30),
    "qbc": (460, 1270, 106),
    "random": (250, 275, 24),
    "switched": (1810, 7995, 81),
    "tcm": (670, 735, 42),
    "typiclust": (670, 730, 41),
    "uherding": (530, 775, 41),
    "uncertainty": (265, 265, 15),
    "vaal": (3025, 14050, 41),
    "vessal": (300, 405, 30),
}
"""Strategy -> (launches with one replicate, launches with five, waits of the host with five)."""

WAITS = 60
"""Of the host in a third round with one replicate, for forms of a strategy that have no line of their own."""

OTHER_PICKS: dict[str, str] = {
    "alfamix": "two of one replicate's twenty among five: clusters of all replicates are found in one batch",
}
"""Strategies that pick other items than on the CPU, and why."""

UNORDERED: dict[str, str] = {
    "acquisition.py _vote_shares": "ones: exact in any order",
    "geometry/submodular.py determinant_information": "one number to one place",
    "strategies/bait/class_wise.py factor": "one number to a place",
    "heads/neighbours.py _votes": "one number to a place in each call",
}
"""Places with float sums in no promised order, and why no bit depends on it."""
