"""The table of strategies says what configs and docstrings say, and the README holds that table."""

from __future__ import annotations

from pathlib import Path

import pytest

import alfm
from alfm.config.paths import conf_dir
from alfm.strategies import catalogue
from alfm.strategies.catalogue import BEGIN, END, cost_of, described, entries, linked, main, markdown


@pytest.fixture(scope="module")
def rows():
    return {row.name.strip("`"): row for row in entries()}


@pytest.fixture
def fixed(rows, monkeypatch):
    """The same table for every call of `main`, so that it is made once."""
    monkeypatch.setattr(catalogue, "entries", lambda: list(rows.values()))


def test_every_config_has_a_row_with_nothing_left_out(rows):
    assert set(rows) == {path.stem for path in (conf_dir() / "query_strategy").glob("*.yaml")}
    for row in rows.values():
        assert row.line and row.paper and row.cost and "\n" not in row.cost and not row.cost.endswith("."), row
        assert "bytes" in row.cost or "that of" in row.cost, row


def test_what_the_rows_say(rows):
    assert rows["random"].paper == "baseline" and "uniform" in rows["random"].line.lower()
    assert rows["bait"].paper.count("https://arxiv.org/abs/") == 2 and "2106.09675" in rows["bait"].paper
    assert rows["badge"].paper == "[Ash et al. 2020](https://arxiv.org/abs/1906.03671)"
    assert (rows["margins"].labels, rows["margins"].head) == ("yes", "yes")
    assert (rows["typiclust"].labels, rows["typiclust"].head) == ("no", "no")
    assert (rows["uherding"].labels, rows["uherding"].head) == ("no", "if there is one")
    assert rows["boss"].labels == "yes, hidden ones too"
    assert rows["dbal"].cost == rows["entropy"].cost + ", times 25 passes"


def test_how_they_are_read():
    assert described("# Draws (Ash et al. 2020); slow") == ("Draws; slow", "Ash et al. 2020")
    assert described("# Uniform") == ("Uniform", "")
    text = "X: Ash & Bo 2020 (2001.00001), and Cy 2021 (2101.00002)."
    assert linked("Ash & Bo 2020; Cy 2021", text) == (
        "[Ash & Bo 2020](https://arxiv.org/abs/2001.00001); [Cy 2021](https://arxiv.org/abs/2101.00002)"
    )
    assert linked("Di 1999", text) == "Di 1999"
    assert cost_of("Does it.\n\n    More. Cost: N D\n    (two passes). It ends.", "x") == "N D (two passes)"
    assert cost_of("Does it. Cost per round: N^2.", "x") == "N^2 per round"
    with pytest.raises(ValueError, match="docstring of mine has no sentence"):
        cost_of("Does it for nothing.", "mine")


def test_a_stale_table_is_found_and_replaced(rows, fixed, tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_text(f"# Title\n\n{BEGIN}\n| old |\n{END}\nThe end, {END}\n")
    assert main(["--check", str(file)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main(["--write", str(file)]) == 0 and main(["--check", str(file)]) == 0
    assert file.read_text() == f"# Title\n\n{markdown(list(rows.values()))}\nThe end, {END}\n"
    file.write_text("# Title\n")
    assert main(["--check", str(file)]) == 1 and main(["--write", str(file)]) == 1
    assert "has no <!-- strategies -->" in capsys.readouterr().err
    assert main(["--check", str(tmp_path / "none.md")]) == 1
    assert main([]) == 0 and capsys.readouterr().out.strip() == markdown(list(rows.values()))


def test_the_readme_is_up_to_date(fixed, capsys):
    readme = Path(alfm.__file__).resolve().parent.parent / "README.md"
    if not (readme.parent / "pyproject.toml").exists():
        pytest.skip("alfm is installed: its README is not beside it")
    assert main(["--check", str(readme)]) == 0, capsys.readouterr().err
