"""What a third round may cost on an accelerator, one line per strategy, and what is let pass by name.

The task is that of `rounds.py`: 400 items, 16 features, 10 classes, 20 picks a round, logistic head, float32 for one
replicate and float64 for five, whose picks are the CPU's; the round is query, fit and measures. `python -m
device.rounds NAME` prints today's line: whoever launches less lowers it here.
"""

BUDGETS = {
    "alfamix": (330, 395, 20),
    "badge": (195, 200, 13),
    "bait": (310, 315, 25),
    "bald": (165, 165, 15),
    "batchbald": (370, 375, 21),
    "boss": (530, 1880, 200),
    "cal": (195, 255, 16),
    "clue": (280, 335, 20),
    "cluster_margin": (175, 190, 21),
    "cog": (180, 250, 25),
    "coreset": (185, 220, 21),
    "dbal": (225, 225, 15),
    "dcom": (435, 445, 22),
    "dropquery": (280, 335, 20),
    "entropy": (165, 165, 14),
    "epig": (295, 300, 24),
    "facility_location": (185, 220, 23),
    "falcun": (190, 255, 20),
    "filtered": (2200, 2560, 68),
    "graph_cut": (190, 265, 21),
    "log_det": (220, 270, 16),
    "margins": (165, 165, 14),
    "maxherding": (240, 280, 24),
    "parbals_epig": (385, 430, 36),
    "pcoreset": (215, 310, 15),
    "powerbald": (170, 170, 15),
    "powerentropy": (170, 170, 14),
    "powermargins": (170, 170, 14),
    "probcover": (150, 165, 31),
    "qbc": (330, 1025, 114),
    "random": (150, 155, 15),
    "switched": (320, 325, 28),
    "tcm": (265, 275, 18),
    "typiclust": (255, 265, 17),
    "uherding": (430, 485, 35),
    "uncertainty": (165, 165, 14),
    "vaal": (235, 245, 21),
    "vessal": (200, 295, 31),
}
"""Strategy -> (launches with one replicate, launches with five, waits of the host with five)."""

WAITS = 60
"""Of the host in a third round with one replicate, for forms of a strategy that have no line of their own."""

OTHER_PICKS: dict[str, str] = {
    "alfamix": "a cluster of two has its centroid midway: which of them is the nearer one is a matter of rounding",
}
"""Strategies that pick other items than on the CPU, and why."""

UNORDERED: dict[str, str] = {
    "acquisition.py _vote_shares": "ones: exact in any order",
    "geometry/pairs.py smallest_distances": "the smallest: the same in any order",
    "geometry/submodular.py determinant_information": "one number to one place",
    "strategies/bait/class_wise.py factor": "one number to a place",
    "heads/neighbours.py _votes": "one number to a place in each call",
}
"""Places with float sums in no promised order, and why no bit depends on it."""
