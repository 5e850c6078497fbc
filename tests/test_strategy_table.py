"""The table of strategies says what configs and docstrings say, and docs/strategies.md holds that table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from alfm.config.paths import conf_dir

_SPEC = importlib.util.spec_from_file_location(
    "strategy_table", Path(__file__).resolve().parents[1] / "docs" / "strategy_table.py"
)
assert _SPEC is not None and _SPEC.loader is not None
strategy_table = importlib.util.module_from_spec(_SPEC)
sys.modules["strategy_table"] = strategy_table  # where its dataclass looks for itself
_SPEC.loader.exec_module(strategy_table)


@pytest.fixture(scope="module")
def rows():
    return {row.name.strip("`"): row for row in strategy_table.entries()}


@pytest.fixture
def fixed(rows, monkeypatch):
    """The same table for every call of `main`, so that it is made once."""
    monkeypatch.setattr(strategy_table, "entries", lambda: list(rows.values()))


def test_every_config_has_a_row_that_can_be_read(rows):
    assert {*rows, "replay"} == {path.stem for path in (conf_dir() / "query_strategy").glob("*.yaml")}
    for row in rows.values():
        assert row.line and row.paper and row.cost and "\n" not in row.cost and not row.cost.endswith("."), row
        assert len(row.cost) <= 120, row


def test_what_the_rows_say(rows):
    assert rows["random"].paper == "baseline" and "uniform" in rows["random"].line.lower()
    assert rows["bait"].paper.count("https://arxiv.org/abs/") == 2 and "2106.09675" in rows["bait"].paper
    assert rows["badge"].paper == "[Ash et al. 2020](https://arxiv.org/abs/1906.03671)"
    assert rows["entropy"].cost.startswith("O(N D C)") and rows["dbal"].cost == "25 passes of " + rows["entropy"].cost
    needs = {name: rows[name].needs for name in ("boss", "margins", "typiclust", "uherding", "vaal")}
    assert needs == {
        "boss": "hidden labels", "margins": "a head", "typiclust": "nothing", "uherding": "a head if there is one",
        "vaal": "labels",
    }  # fmt: skip


def test_how_they_are_read():
    described, linked, cost_of = strategy_table.described, strategy_table.linked, strategy_table.cost_of
    assert described("# Draws (Ash et al. 2020); slow") == ("Draws; slow", "Ash et al. 2020")
    assert described("# Uniform") == ("Uniform", "")
    text = "X: Ash & Bo 2020 (2001.00001), and Cy 2021 (2101.00002)."
    assert linked("Ash & Bo 2020; Cy 2021", text) == (
        "[Ash & Bo 2020](https://arxiv.org/abs/2001.00001); [Cy 2021](https://arxiv.org/abs/2101.00002)"
    )
    assert linked("Di 1999", text) == "Di 1999"
    assert cost_of("Does it.\n\n    More. Cost: O(N D)\n    (two passes). It ends.", "x") == "O(N D) (two passes)"
    for wrong in ("Does it for nothing.", "Does it. Cost: two passes."):
        with pytest.raises(ValueError, match="docstring of mine has no sentence"):
            cost_of(wrong, "mine")


def test_a_stale_table_is_found_and_replaced(rows, fixed, tmp_path, capsys):
    main, markdown = strategy_table.main, strategy_table.markdown
    begin, end = strategy_table.BEGIN, strategy_table.END
    file = tmp_path / "page.md"
    file.write_text(f"# Title\n\n{begin}\n| old |\n{end}\nThe end, {end}\n")
    assert main(["--check", str(file)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main(["--write", str(file)]) == 0 and main(["--check", str(file)]) == 0
    assert file.read_text() == f"# Title\n\n{markdown(list(rows.values()))}\nThe end, {end}\n"
    file.write_text("# Title\n")
    assert main(["--check", str(file)]) == 1 and main(["--write", str(file)]) == 1
    assert "has no <!-- strategies -->" in capsys.readouterr().err
    assert main(["--check", str(tmp_path / "none.md")]) == 1
    assert main([]) == 0 and capsys.readouterr().out.strip() == markdown(list(rows.values()))


def test_the_page_is_up_to_date(fixed, capsys):
    assert strategy_table.main(["--check"]) == 0, capsys.readouterr().err
