"""Query strategies. Yours is a subclass of `Strategy`, see `alfm.testing.strategy_checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alfm.lazy import lazy

if TYPE_CHECKING:
    from alfm.strategies.alfamix import AlfaMix
    from alfm.strategies.badge import Badge
    from alfm.strategies.bait import Bait
    from alfm.strategies.balanced import Balanced
    from alfm.strategies.bald import Bald
    from alfm.strategies.base import Strategy
    from alfm.strategies.batchbald import BatchBald
    from alfm.strategies.boss import Boss
    from alfm.strategies.cal import Cal
    from alfm.strategies.centroid import Centroid
    from alfm.strategies.clue import Clue
    from alfm.strategies.cluster_margin import ClusterMargin
    from alfm.strategies.cog import Cog
    from alfm.strategies.coreset import Coreset
    from alfm.strategies.dcom import Dcom
    from alfm.strategies.dropquery import DropQuery
    from alfm.strategies.entropy import Entropy
    from alfm.strategies.epig import Epig
    from alfm.strategies.facility_location import FacilityLocation
    from alfm.strategies.falcun import Falcun
    from alfm.strategies.filtered import Filtered
    from alfm.strategies.graph_cut import GraphCut
    from alfm.strategies.index_file import IndexFile
    from alfm.strategies.log_det import LogDet
    from alfm.strategies.margins import Margins
    from alfm.strategies.maxherding import MaxHerding
    from alfm.strategies.parbals_epig import ParbalsEpig
    from alfm.strategies.pcoreset import PCoreSet
    from alfm.strategies.power import PowerBald, PowerEntropy, PowerMargins
    from alfm.strategies.probcover import ProbCover
    from alfm.strategies.qbc import Qbc
    from alfm.strategies.query import Query
    from alfm.strategies.random import Random
    from alfm.strategies.replay import Replay
    from alfm.strategies.switch_rules import AfterAgreement, AfterLabels, AfterRounds, SwitchRule
    from alfm.strategies.switched import Switched
    from alfm.strategies.tcm import Tcm
    from alfm.strategies.typiclust import TypiClust
    from alfm.strategies.uherding import UHerding
    from alfm.strategies.uncertainty import Uncertainty
    from alfm.strategies.vaal import Vaal
    from alfm.strategies.vessal import Vessal

_HOMES = {
    "alfm.strategies.alfamix": ("AlfaMix",),
    "alfm.strategies.badge": ("Badge",),
    "alfm.strategies.bait": ("Bait",),
    "alfm.strategies.balanced": ("Balanced",),
    "alfm.strategies.bald": ("Bald",),
    "alfm.strategies.base": ("Strategy",),
    "alfm.strategies.batchbald": ("BatchBald",),
    "alfm.strategies.boss": ("Boss",),
    "alfm.strategies.cal": ("Cal",),
    "alfm.strategies.centroid": ("Centroid",),
    "alfm.strategies.clue": ("Clue",),
    "alfm.strategies.cluster_margin": ("ClusterMargin",),
    "alfm.strategies.cog": ("Cog",),
    "alfm.strategies.coreset": ("Coreset",),
    "alfm.strategies.dcom": ("Dcom",),
    "alfm.strategies.dropquery": ("DropQuery",),
    "alfm.strategies.entropy": ("Entropy",),
    "alfm.strategies.epig": ("Epig",),
    "alfm.strategies.facility_location": ("FacilityLocation",),
    "alfm.strategies.falcun": ("Falcun",),
    "alfm.strategies.filtered": ("Filtered",),
    "alfm.strategies.graph_cut": ("GraphCut",),
    "alfm.strategies.index_file": ("IndexFile",),
    "alfm.strategies.log_det": ("LogDet",),
    "alfm.strategies.margins": ("Margins",),
    "alfm.strategies.maxherding": ("MaxHerding",),
    "alfm.strategies.parbals_epig": ("ParbalsEpig",),
    "alfm.strategies.pcoreset": ("PCoreSet",),
    "alfm.strategies.power": ("PowerBald", "PowerEntropy", "PowerMargins"),
    "alfm.strategies.probcover": ("ProbCover",),
    "alfm.strategies.qbc": ("Qbc",),
    "alfm.strategies.query": ("Query",),
    "alfm.strategies.random": ("Random",),
    "alfm.strategies.replay": ("Replay",),
    "alfm.strategies.switch_rules": ("AfterAgreement", "AfterLabels", "AfterRounds", "SwitchRule"),
    "alfm.strategies.switched": ("Switched",),
    "alfm.strategies.tcm": ("Tcm",),
    "alfm.strategies.typiclust": ("TypiClust",),
    "alfm.strategies.uherding": ("UHerding",),
    "alfm.strategies.uncertainty": ("Uncertainty",),
    "alfm.strategies.vaal": ("Vaal",),
    "alfm.strategies.vessal": ("Vessal",),
}

__all__ = [
    "AfterAgreement", "AfterLabels", "AfterRounds", "AlfaMix", "Badge", "Bait", "Balanced", "Bald", "BatchBald",
    "Boss", "Cal", "Centroid", "Clue", "ClusterMargin", "Cog", "Coreset", "Dcom", "DropQuery", "Entropy", "Epig",
    "FacilityLocation", "Falcun", "Filtered", "GraphCut", "IndexFile", "LogDet", "Margins", "MaxHerding",
    "ParbalsEpig", "PCoreSet", "PowerBald", "PowerEntropy", "PowerMargins", "ProbCover", "Qbc", "Query", "Random",
    "Replay", "Strategy", "Switched", "SwitchRule", "Tcm", "TypiClust", "UHerding", "Uncertainty", "Vaal", "Vessal",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
