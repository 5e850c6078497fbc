"""What a third round may cost on an accelerator, one line per strategy, and what is let pass by name.

The task is that of `rounds.py`: 400 items, 16 features, 10 classes, 20 picks a round, logistic head, float32 for one
replicate and float64 for five, whose picks are the CPU's; the round is query, fit and measures. `python -m
device.rounds NAME` prints today's line: whoever launches less lowers it here.
"""

BUDGETS = {
    "alfamix": (620, 690, 45),
    "badge": (330, 465, 70),
    "bait": (470, 470, 30),
    "bald": (260, 260, 20),
    "batchbald": (475, 475, 22),
    "boss": (685, 2305, 325),
    "cal": (295, 350, 18),
    "clue": (620, 690, 45),
    "cluster_margin": (290, 330, 30),
    "cog": (295, 405, 30),
    "coreset": (280, 315, 22),
    "dbal": (510, 450, 20),
    "dcom": (535, 545, 23),
    "dropquery": (635, 710, 45),
    "entropy": (280, 300, 20),
    "epig": (480, 485, 30),
    "facility_location": (280, 310, 23),
    "falcun": (310, 405, 21),
    "filtered": (1760, 2400, 140),
    "graph_cut": (290, 365, 22),
    "log_det": (315, 370, 18),
    "margins": (285, 300, 20),
    "maxherding": (330, 365, 27),
    "parbals_epig": (560, 600, 40),
    "pcoreset": (315, 405, 17),
    "powerbald": (265, 265, 57),
    "powerentropy": (290, 310, 54),
    "powermargins": (290, 310, 56),
    "probcover": (265, 300, 35),
    "qbc": (485, 1385, 205),
    "random": (265, 310, 40),
    "switched": (950, 860, 32),
    "tcm": (640, 690, 48),
    "typiclust": (640, 690, 48),
    "uherding": (555, 605, 40),
    "uncertainty": (280, 295, 48),
    "vaal": (385, 385, 25),
    "vessal": (320, 450, 31),
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
