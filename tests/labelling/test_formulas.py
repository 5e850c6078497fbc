"""Cells that a spreadsheet would run."""

from __future__ import annotations

import itertools

import pytest

from alfm.labelling.formulas import guarded, unguarded


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@sum", "\tx", "\rx"])
def test_what_a_spreadsheet_would_run_gets_a_quote(text):
    assert guarded(text) == f"'{text}" and unguarded(guarded(text)) == text


def test_every_text_comes_back_as_it_was_and_no_two_are_written_alike():
    texts = ["".join(letters) for n in range(5) for letters in itertools.product("'=\ta-", repeat=n)]
    assert [unguarded(guarded(text)) for text in texts] == texts
    assert len({guarded(text) for text in texts}) == len(texts)
    assert guarded("'tis") == "'tis" and guarded("a=b") == "a=b"
