"""What acts make known: labels, ties, classes, training order, rounds and the audit's window."""

from __future__ import annotations

import itertools

import pytest

from alfm.errors import UserError
from alfm.labelling.state import Source, State

NUMBER = itertools.count()
ITEMS = [f"i{row}" for row in range(12)]


def new(items=ITEMS, labels=None, classes=(), use="use"):
    state = State(lambda entry: Source(list(entry["items"]), entry.get("labels", {})))
    cache = {"fingerprint": "f", "split": "train", "rows": len(items), "items": items, "labels": labels or {}}
    do(state, "settings", caches=[cache], seed=3, labels_in_cache=use, classes=list(classes))
    return state


def do(state, kind, by="me", **what):
    name = what.pop("id", f"act {next(NUMBER)}")
    return state.apply({"id": name, "time": "now", "by": by, "act": kind, **what})


def label(state, item, name, by="me"):
    return do(state, "label", by, item=item, label=name)


def batch(state, items, round=None):
    do(state, "batch", round=round or state.next_round, n=len(items), items=items, labels=state.digest(), filled=0)


def trained(state):
    return [one.item for one in state.training]


def test_the_last_word_of_an_annotator_stands():
    state = new()
    label(state, "i1", "cat")
    label(state, "i1", "dog")
    assert state.label_of("i1") == "dog" and state.classes == ["dog"]
    do(state, "skip", item="i1")
    assert state.label_of("i1") is None and state.skipped("i1") and not state.wanted("i1")
    label(state, "i1", "cat")
    do(state, "clear", item="i1")
    assert state.label_of("i1") is None and state.wanted("i1") and state.classes == []
    assert state.item_revision("i1") == state.revision == 6 and state.item_revision("i2") == 0


def test_the_majority_of_annotators_counts_and_a_tie_is_asked_again():
    state = new()
    label(state, "i1", "cat", "a")
    label(state, "i1", "dog", "b")
    assert state.label_of("i1") is None and state.ties == ["i1"] and state.wanted("i1") and trained(state) == []
    do(state, "skip", "c", item="i1")
    assert state.ties == ["i1"] and not state.skipped("i1")
    label(state, "i1", "dog", "c")
    assert state.label_of("i1") == "dog" and state.ties == [] and trained(state) == ["i1"]
    do(state, "clear", "b", item="i1")
    assert state.ties == ["i1"] and trained(state) == []
    label(state, "i1", "cat", "c")
    assert state.votes["i1"] == {"a": "cat", "c": "cat"} and state.label_of("i1") == "cat"


def test_an_act_counts_once():
    state = new()
    assert do(state, "label", item="i1", label="cat", id="one")
    assert label(state, "i1", "dog")
    assert not do(state, "label", item="i1", label="cat", id="one")
    assert state.label_of("i1") == "dog"


def test_what_is_ruled_out_is_counted_and_is_no_label():
    state = new(labels={"i5": "cat"})
    do(state, "reject", item="i1", label="cat")
    do(state, "reject", item="i1", label="cat")
    assert state.rejections == {"i1": {"me": ["cat"]}} and state.label_of("i1") is None and state.wanted("i1")
    label(state, "i1", "cat")
    assert state.rejections["i1"]["me"] == [] and state.label_of("i1") == "cat"
    do(state, "reject", item="i1", label="cat")
    assert state.label_of("i1") is None
    do(state, "reject", item="i5", label="cat")
    assert state.label_of("i5") is None
    do(state, "clear", item="i5")
    assert state.label_of("i5") == "cat"


def test_labels_of_the_cache_count_until_a_person_speaks():
    labels = {"i3": "cat", "i1": "dog"}
    state = new(labels=labels)
    assert trained(state) == ["i1", "i3"] and state.round == 0
    label(state, "i3", "dog")
    assert state.label_of("i3") == "dog" and state.ties == []
    do(state, "clear", item="i3")
    assert state.label_of("i3") == "cat"
    do(state, "skip", item="i3")
    assert state.label_of("i3") is None and state.skipped("i3")
    assert trained(new(labels=labels, use="ignore")) == []


def test_classes_as_given_then_as_they_appear():
    state = new(classes=["a", "b"])
    label(state, "i4", "z")
    label(state, "i2", "y")
    label(state, "i5", "b")
    assert state.classes == ["a", "b", "z", "y"]
    assert state.training_classes == ["a", "b", "y", "z"]  # by row: not in the order told
    do(state, "class", add="y")
    assert state.classes == ["a", "b", "y", "z"]
    do(state, "clear", item="i4")
    assert state.classes == ["a", "b", "y"]


def test_a_renamed_class_keeps_its_place_and_its_old_name_means_it():
    state = new(classes=["a", "b"])
    label(state, "i1", "a")
    do(state, "reject", item="i2", label="a")
    do(state, "class", rename=["a", "c"])
    assert state.classes == ["c", "b"] and state.label_of("i1") == "c" and state.rejections["i2"]["me"] == ["c"]
    label(state, "i3", "a")
    assert state.label_of("i3") == "c" and state.classes == ["c", "b"]
    with pytest.raises(UserError, match="'b' is there already: merge"):
        do(state, "class", rename=["c", "b"])
    with pytest.raises(UserError, match="no class 'x'"):
        do(state, "class", rename=["x", "y"])
    do(state, "class", rename=["c", "a"])  # and back
    label(state, "i4", "c")
    assert state.classes == ["a", "b"] and state.label_of("i4") == "a"
    do(state, "class", add="c")  # a new one of that name
    label(state, "i4", "c")
    assert state.classes == ["a", "b", "c"] and state.label_of("i4") == "c"


def test_two_names_can_be_swapped():
    state = new()
    label(state, "i1", "a"), label(state, "i2", "b")
    for old, other in (("a", "t"), ("b", "a"), ("t", "b")):
        do(state, "class", rename=[old, other])
    assert [state.label_of(item) for item in ("i1", "i2")] == ["b", "a"]
    label(state, "i3", "a"), label(state, "i4", "b")
    assert [state.label_of(item) for item in ("i3", "i4")] == ["a", "b"]


def test_merged_classes_are_one_and_a_tie_between_them_ends():
    state = new(classes=["a", "b", "c"])
    label(state, "i1", "a", "x"), label(state, "i1", "b", "y"), label(state, "i2", "c")
    do(state, "class", merge=[["a", "b"], "b"])
    assert state.classes == ["b", "c"] and state.label_of("i1") == "b" and trained(state) == ["i1", "i2"]
    do(state, "class", merge=[["b", "c"], "all"])
    assert state.classes == ["all"] and {one.label for one in state.training} == {"all"}


def test_training_order_is_rounds_then_places_then_rows():
    state = new()
    label(state, "i9", "a"), label(state, "i8", "a")  # before anything was asked
    batch(state, ["i5", "i3", "i7"])
    label(state, "i7", "a"), label(state, "i5", "b"), label(state, "i0", "a")
    batch(state, ["i6", "i2"])
    label(state, "i2", "a"), label(state, "i3", "a"), label(state, "i6", "a"), label(state, "i1", "a")
    assert trained(state) == ["i8", "i9", "i5", "i7", "i0", "i3", "i6", "i2", "i1"]
    assert [one.round for one in state.training] == [0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_put_back_is_as_if_nothing_had_been():
    state = new()
    batch(state, ["i5", "i3"])
    label(state, "i5", "a"), label(state, "i3", "b")
    before, asked = state.digest(), state.training
    batch(state, ["i6"])
    label(state, "i5", "other")
    assert state.digest() != before
    do(state, "clear", item="i5")
    label(state, "i5", "a")
    assert state.digest() == before and state.training == asked and state.next_round == 2
    assert state.recorded(1).items == ("i6",) and state.recorded(2) is None
    do(state, "skip", item="i8")
    assert state.digest() != before and state.next_round == 3 and state.recorded(1) is None


def test_the_order_in_which_labels_are_told_changes_nothing():
    digests = set()
    for order in itertools.permutations([("i5", "a"), ("i3", "b"), ("i9", "c")]):
        state = new()
        batch(state, ["i5", "i3"])
        for item, name in order:
            label(state, item, name)
        digests.add(state.digest())
    assert len(digests) == 1


# ---- the audit -------------------------------------------------------------------------------------------------------


def audited(size=4):
    state = new()
    do(state, "audit", items=size)
    return state, list(state.window.items)


def test_the_window_is_the_first_of_an_order_that_is_the_seeds_alone():
    state, first = audited()
    again = new(items=ITEMS[::-1])
    do(again, "audit", items=4)
    assert again.window.items == first and len(first) == 4
    wider, more = audited(6)
    assert more[:4] == first and wider.window.size == 6


def test_labels_in_the_window_are_not_trained_on_others_are():
    state, window = audited()
    outside = next(item for item in ITEMS if item not in window)
    label(state, window[1], "a"), label(state, outside, "b")
    assert trained(state) == [outside] and state.label_of(window[1]) == "a" and state.window.items == window
    assert state.training_classes == ["b"] and state.classes == ["a", "b"]
    digest = state.digest()
    label(state, window[0], "a")
    assert state.digest() == digest  # the strategy does not know


def test_what_a_batch_takes_is_trained_on_at_once_and_the_next_takes_its_place():
    state, window = audited()
    label(state, window[1], "a")
    outside = [item for item in ITEMS if item not in window]
    batch(state, [outside[0], window[1], window[3]])
    assert trained(state) == [window[1]] and state.open_items() == [outside[0], window[3]]
    assert state.window.items[:2] == [window[0], window[2]] and len(state.window) == 4
    assert state.recorded(3) is not None and state.next_round == 2
    label(state, outside[0], "a"), label(state, window[3], "b")
    assert trained(state) == [outside[0], window[1], window[3]]


def test_a_skipped_item_leaves_the_window_and_comes_back():
    state, window = audited()
    label(state, window[3], "a")
    do(state, "skip", item=window[0])
    assert state.window.items[:3] == window[1:] and state.window.skipped == [window[0]]
    last = state.window.items[3]
    label(state, last, "b")
    do(state, "clear", item=window[0])
    assert state.window.items == window and state.window.skipped == []
    assert trained(state) == [last]  # it is no longer in the window, but has a label


def test_a_smaller_audit_gives_its_labels_to_training():
    state, window = audited()
    for item in window:
        label(state, item, "a")
    do(state, "audit", items=2)
    assert set(trained(state)) == set(window[2:])
    do(state, "audit", items=5)
    assert not set(state.window.items) & set(window[2:])  # once trained on, never audited
    do(state, "clear", item=window[2])
    assert window[2] not in state.window


# ---- hand-edited acts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ({"act": "dance"}, "no act 'dance'"),
        ({"act": None}, "no act 'None'"),
        ({"act": ["label"]}, "no act"),
        ({"act": "apply"}, "no act 'apply'"),
        ({"act": "label", "item": "i1"}, "lacks something"),
        ({"act": "label", "item": "i1", "label": 7}, "named by a text"),
        ({"act": "label", "item": "i1", "label": " "}, "named by a text"),
        ({"act": "label", "item": "nobody", "label": "a"}, "no item 'nobody'"),
        ({"act": "label", "item": ["i1"], "label": "a"}, "lacks something"),
        ({"act": "label", "item": "i1", "label": "a", "by": None}, "who acts"),
        ({"act": "class", "rename": ["a"]}, "lacks something"),
        ({"act": "batch", "round": 1, "n": 2, "items": ["i1", "i1"], "labels": ""}, "twice"),
        ({"act": "audit", "items": -1}, "audit of -1"),
        ({"act": "settings"}, "lacks something"),
        ({"id": "", "act": "skip", "item": "i1"}, "no id"),
        ({"id": 3, "act": "skip", "item": "i1"}, "no id"),
    ],
)
def test_what_is_no_act_is_refused_and_changes_nothing(act, why):
    state = new()
    with pytest.raises(UserError, match=why):
        state.apply({"id": "x", "time": "now", "by": "me", **act})
    assert state.revision == 1 and not state.votes and not state.batches


def test_acts_begin_with_the_settings():
    with pytest.raises(UserError, match="begin with one that says the settings"):
        do(State(lambda entry: Source([])), "skip", item="i1")


def test_a_pool_grows_behind_what_there_is():
    state = new()
    label(state, "i1", "a")
    do(state, "audit", items=3)
    first = state.settings["caches"][0]
    more = {"fingerprint": "g", "split": "train", "rows": 2, "items": ["n0", "n1"]}
    given = {"seed": 3, "labels_in_cache": "use", "classes": []}
    do(state, "settings", caches=[first, more], **given)
    assert state.rows["n0"] == 12 and state.items[:12] == ITEMS and trained(state) == ["i1"]
    for wrong in ([more, first], [first], [{**first, "fingerprint": "h"}, more]):
        with pytest.raises(UserError, match="may add caches"):
            do(state, "settings", caches=wrong, **given)
    with pytest.raises(UserError, match="may add caches"):
        do(state, "settings", caches=[first, more], **{**given, "seed": 4})
    with pytest.raises(UserError, match="'i3' is there twice"):
        again = {"fingerprint": "k", "split": "train", "rows": 2, "items": ["i3", "n2"]}
        do(state, "settings", caches=[first, more, again], **given)
    assert "n2" not in state.rows
