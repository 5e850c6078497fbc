"""Names that are equal though their bytes differ."""

from __future__ import annotations

from alfm.datasets.names import one_spelling, same_name

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_names_are_compared_in_one_form_and_without_a_byte_order_mark() -> None:
    assert same_name(COMPOSED) == same_name(DECOMPOSED) == same_name("\ufeff" + DECOMPOSED) == COMPOSED
    assert same_name("plain") == "plain" == same_name("\ufeffplain")


def test_names_stay_as_written_where_there_is_one_way_of_writing() -> None:
    assert one_spelling([DECOMPOSED, "b", DECOMPOSED]) == {DECOMPOSED: DECOMPOSED, "b": "b"}
    assert one_spelling([DECOMPOSED, COMPOSED]) == {DECOMPOSED: COMPOSED, COMPOSED: COMPOSED}
    assert one_spelling(["\ufeffcat", "cat"]) == {"\ufeffcat": "cat", "cat": "cat"}
