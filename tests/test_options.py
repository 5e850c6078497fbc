"""The mechanism by which options say what they may be (alfm/options.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypedDict, Unpack

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Len, Lt, MinLen
from omegaconf import OmegaConf

from alfm.config.build import build
from alfm.errors import UserError
from alfm.options import Means, OptionError, check, checked, described, of_kind, options_of
from alfm.strategies.base import Strategy
from alfm.strategies.margins import Margins

HERE = __name__


@dataclass
@checked
class Box:
    width: Annotated[float, Gt(0)] = 1.0
    kind: Literal["near", "far"] = "near"
    inner: Box | None = None

    def __post_init__(self) -> None:
        self.seen = True


@dataclass
class Wider(Box):
    """Not decorated itself: what it inherits is checked, what it declares is not."""

    width: float = 0.0
    height: Annotated[float, Gt(0)] = 1.0


@checked
class Written:
    def __init__(self, count: Annotated[int, Ge(1)], *rest: int, extra: Any = None) -> None:
        self.count = count


class More(TypedDict, total=False):
    depth: Annotated[int, Ge(0)]


@checked
def function(root: str, share: Annotated[float, Ge(0), Lt(1)] | None = None, **more: Unpack[More]) -> str:
    return root


class Fitter(Protocol):
    def fit(self) -> None: ...


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1, 0, "3", [3], {"a": 3}, True])
def test_a_dataclass_refuses_what_its_annotation_does_not_allow(value):
    with pytest.raises(OptionError, match=r"^Box width=.*: a number above 0 is needed$"):
        Box(width=value)


def test_what_is_given_is_kept_as_it_is():
    box = Box(width=3, inner=Box())
    assert box.width == 3 and type(box.width) is int and box.seen and replace(box, kind="far").seen
    width = np.float32(2.5)
    assert Box(width=width).width is width
    with pytest.raises(OptionError, match="did you mean near"):
        replace(box, kind="neer")
    with pytest.raises(OptionError, match="near or far is needed"):
        Box(kind=3)


def test_a_subclass_is_checked_where_it_inherits():
    assert Wider(height=-1).width == 0.0
    with pytest.raises(OptionError, match="^Wider kind=x"):
        Wider(kind="x")


def test_constructors_and_functions():
    assert Written(3, -1, -2, extra=0).count == 3 and function("x", 0.5, depth=3) == "x"
    for wrong, says in (
        (lambda: Written(0), "Written count=0: a whole number of at least 1 is needed"),
        (lambda: Written(2.0), "Written count=2.0"),
        (lambda: function(3), "function root=3: a text is needed"),
        (lambda: function("x", share=1), "function share=1: a number of at least 0 and below 1 or null is needed"),
        (lambda: function("x", depth=-1), "function depth=-1"),
    ):
        with pytest.raises(OptionError, match=says):
            wrong()
    with pytest.raises(TypeError, match="positional"):
        function("x", 0.5, "colour")
    assert set(options_of(function)) == {"root", "share", "depth"} and set(options_of(Box)) == {
        "width",
        "kind",
        "inner",
    }


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Annotated[float, Ge(0), Le(1)] | Literal["auto"], "a number between 0 and 1 or auto"),
        (Annotated[int, Gt(0)] | None, "a whole number above 0 or null"),
        (Sequence[Annotated[int, Ge(0)]], "a list, each entry a whole number of at least 0"),
        (Mapping[str, str], "a mapping whose values are each a text"),
        (Mapping[str, Any] | bool, "a mapping or true or false"),
        (tuple[float, float], "a list of 2, each entry a number"),
        (Annotated[Sequence[int], MinLen(1)], "a list of 1 or more, each entry a whole number"),
        (Annotated[str, Means("cpu or cuda")] | None, "cpu or cuda or null"),
        (Annotated[Sequence[float], Len(3, 3)], "a list of 3, each entry a number"),
        (Box, "a Box"),
    ],
)
def test_words(hint, words):
    assert described(hint) == words
    with pytest.raises(OptionError):
        check("x", "y", object(), hint)


def test_a_text_is_no_list():
    check("x", "classes", ["words"], Sequence[Any] | None)
    with pytest.raises(OptionError, match="a list"):
        check("x", "classes", "words", Sequence[Any] | None)


def test_arrays_count_as_lists():
    check("x", "rows", np.arange(3), Sequence[Annotated[int, Ge(0)]])
    with pytest.raises(OptionError):
        check("x", "rows", np.array([-1]), Sequence[Annotated[int, Ge(0)]])


def test_a_config_s_sentence_names_the_setting():
    cfg = OmegaConf.create({"box": {"_target_": f"{HERE}.Box", "inner": {"_target_": f"{HERE}.Box", "width": -1}}})
    with pytest.raises(UserError, match=r"^box\.inner\.width=-1: a number above 0"):
        build(cfg.box)
    cfg.box.inner = 3
    with pytest.raises(UserError, match=r"^box\.inner=3: a Box or null is needed"):
        build(cfg.box)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (None, "query_strategy=null: a Strategy is needed"),
        (3, "query_strategy=3: a Strategy is needed"),
        ({"width": 3}, "a Strategy is needed"),
        ({"_target_": "fractions.Fraction"}, "query_strategy._target_=fractions.Fraction gives a Fraction"),
        ({"_target_": "os.system", "command": "true"}, "query_strategy._target_=os.system: Hydra lets no config"),
        ({"_target_": f"{HERE}.Box", "inner": {"_target_": "os.system"}}, r"query_strategy.inner._target_=os.system"),
        ({"_target_": 3}, "query_strategy._target_=3"),
        ({"_target_": f"{HERE}.Nothing"}, "There is no .*Nothing"),
    ],
)
def test_an_object_must_be_of_its_group_s_kind(node, says):
    with pytest.raises(UserError, match=says) as caught:
        build(OmegaConf.create({"query_strategy": node}).query_strategy, Strategy, "query_strategy")
    assert "\n" not in str(caught.value)


def test_kinds():
    class Own:
        def fit(self) -> None: ...

    assert of_kind(Own(), Fitter) and not of_kind(Own, Fitter) and not of_kind(3, Fitter)
    assert of_kind(Margins(), Strategy) and not of_kind(Margins, Strategy)


def test_what_nobody_checks_is_not_imported():
    """--help and a user's own classes do not pay for pydantic."""
    code = "import sys, alfm.config.hydra; assert 'pydantic' not in sys.modules"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
