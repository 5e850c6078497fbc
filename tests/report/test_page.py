"""The report as one page, and the files beside it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import made_up_runs
import pytest
from made_up_runs import made_up

from alfm.metrics import PERCENT
from alfm.report.__main__ import main
from alfm.report.cells import ALIKE, Table, TableCell
from alfm.report.html import paper
from alfm.report.html.exports import as_csv
from alfm.report.html.interactive import draw
from alfm.report.html.pictures import Bars, Diagram, Estimate, Forest, Lines, Points, Series
from alfm.report.latex import document

jinja2 = pytest.importorskip("jinja2")
plotly = pytest.importorskip("plotly")

ODD = "<img src=x onerror=alert(1)>&\"'{{7*7}}"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for data in "ab":
        made_up(folder / "logs", {"random": 0.0, "margins": 0.03, ODD: -0.02}, data=data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "ENDINGS", (".svg",))  # .pdf takes longer, and has a test of its own
        assert main([str(folder / "logs"), "--html", str(folder / "out" / "my report.html")]) == 0
    return folder / "out" / "my report.html"


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two backbones: a replay, an oracle and a random that nobody asked for."""
    folder = tmp_path_factory.mktemp("backbones")
    made_up(folder / "logs", {"random": 0.0, "margins": 0.03}, seeds=2, data="a")
    gains = {"random": 0.0, "boss": 0.05, "margins": 0.01}
    made_up(folder / "logs", gains, seeds=2, data="a", model="another", reference_added=True)
    of = {"dataset": "a", "model": "pixels", "run": "margins-*"}
    (of["run"],) = (one.name for one in (folder / "logs" / "a" / "pixels").glob(of["run"]))
    name = "margins, picked with pixels"
    made_up(folder / "logs", {name: 0.02}, seeds=2, data="a", model="another", query_strategy={"name": name, "of": of})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "ENDINGS", ())
        assert main([str(folder / "logs"), "--html", str(folder / "report.html")]) == 0
    return folder / "report.html"


def test_one_page_holds_all_that_it_needs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 6_000_000
    assert text.count('id="library"') == 1
    own = re.sub(r'<script type="text/plain" id="library">[^<]*</script>', "", text)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", own)
    assert "default-src 'none'" in own
    for section in ("In short", "Learning curves", "Gain over random", "Every strategy beside every other",
                    "Verdicts beside random", "Labels saved", "Time and memory", "How to repeat it"):  # fmt: skip
        assert section in own, section


def test_names_are_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;{{7*7}}" in text
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    names = {trace["name"] for figure in figures.values() for trace in figure["data"] if "name" in trace}
    assert any(name.startswith("&lt;img") for name in names)  # what the plotting library draws, it reads as HTML
    assert not any("<" in name for name in names)


def test_links_lead_to_files_beside_it(page: Path) -> None:
    from urllib.parse import unquote

    links = re.findall(r'href="([^"#]+)"', page.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (page.parent / unquote(link)).is_file(), link
    beside = page.with_name("my report_files")
    assert {file.suffix for file in beside.iterdir()} == {".csv", ".tex", ".md", ".svg"}
    for file in beside.glob("*.svg"):
        ElementTree.parse(file)
    for file in beside.glob("*.csv"):
        assert len({len(line) for line in csv.reader(io.StringIO(file.read_text()))}) == 1, file


def test_every_anchor_is_there_once(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors = re.findall(r' id="([^"]+)"', text)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(anchors)


def test_a_figure_is_valid_to_its_library() -> None:
    from plotly.graph_objects import Figure

    one = PERCENT
    pictures = [
        Lines("a", "A", "y", [Series("random", [1, 2], [1.0, 2.0], [0.1, float("nan")])], one, levels={"all": 3.0}),
        Forest("b", "B", "x", [Estimate("q", 1.0, 0.5, 1.5, "better"), Estimate("r", 1.0, *[float("nan")] * 2)], one),
        Bars("c", "C", "x", {"margins": [1.0, 2.0]}, ["fit", "query"], one),
        Points("d", "D", "x", "y", [("rule", "margins", 1.0, 2.0)], (one, one), "rule"),
        Diagram("e", "E", {"a": 1.0, "b": 1.5, "c": 3.0}, 1.0),
    ]  # fmt: skip
    for picture in pictures:
        found = draw(picture, {})
        text = re.sub(r"\$(\w+)(/[\d.]+)?", "#123456", json.dumps(found, allow_nan=False))
        found = json.loads(text)
        Figure(data=found["data"], layout=found["layout"])  # raises for a key that it does not know
        assert picture.table().rows


def test_a_figure_for_papers(tmp_path: Path) -> None:
    odd = "cost $5 & <b>"
    picture = Lines("a", odd, "y", [Series(odd, [1, 2], [1.0, 2.0], [0.1, 0.1])], PERCENT, levels={"all $": 3.0})
    svg, pdf = paper.write_picture(picture, {}, tmp_path / "one")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert odd in "".join(ElementTree.parse(svg).getroot().itertext())
    before = svg.read_bytes(), pdf.read_bytes()
    assert [file.read_bytes() for file in paper.write_picture(picture, {}, tmp_path / "one")] == list(before)


def test_bars_of_a_diagram_are_over_what_is_not_told_apart() -> None:
    ranks = {"a": 1.0, "b": 1.5, "c": 2.2, "d": 5.0}
    assert Diagram("e", "E", ranks, 1.0).cliques() == [(1.0, 1.5), (1.5, 2.2)]
    assert Diagram("e", "E", ranks, 1.3).cliques() == [(1.0, 2.2)]
    assert Diagram("e", "E", ranks, 0.1).cliques() == []


def test_a_table_as_csv_and_latex() -> None:
    cells = [TableCell("a_b & 50 %"), TableCell(0.5, PERCENT, ALIKE, spread=0.01), TableCell(None)]
    table = Table("A # title", ["name", "gain", "empty"], [cells], ["100 % of it."])
    assert as_csv(table) == "name,gain,gain ±,gain verdict,empty\na_b & 50 %,0.5,0.01,=,\n"
    text = document(table)
    assert r"a\_b \& 50 \% & 50.0 $\pm$1.0 = &  \\" in text
    assert r"\begin{tabular}{lrr}" in text and r"100 \% of it." in text


def test_latex_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(tmp_path, {"random": 0.0, "power_margins": 0.03}, seeds=2)
    assert main([str(tmp_path), "--format", "latex"]) == 0
    assert r"power\_margins &" in capsys.readouterr().out


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    made_up(tmp_path, {"random": 0.0}, seeds=1)
    assert main([str(tmp_path), "--html", str(tmp_path / "report.png")]) == 1
    assert "report.html" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main([str(tmp_path), "--html", str(tmp_path / "report.html")]) == 1
    assert "pip install 'alfm[report]'" in capsys.readouterr().err


def test_few_seeds_no_random_and_one_strategy_have_a_page_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paper, "ENDINGS", ())
    made_up(tmp_path / "one", {"margins": 0.03}, seeds=1)
    made_up(tmp_path / "no_random", {"margins": 0.03, "badge": 0.0}, seeds=3)
    for name in ("one", "no_random"):
        file = tmp_path / f"{name}.html"
        assert main([str(tmp_path / name), "--html", str(file)]) == 0
        assert "Nothing is said about gains over random" in file.read_text(encoding="utf-8")


def test_rounds_in_no_band_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "ENDINGS", ())
    monkeypatch.setattr(made_up_runs, "ROUNDS", 23)
    made_up(tmp_path / "logs", {"random": 0.0, "margins": 0.02})
    assert main([str(tmp_path / "logs"), "--html", str(tmp_path / "r.html")]) == 0
    assert "Rounds 22 to 23 are in no band; the area counts them." in (tmp_path / "r.html").read_text()


def test_the_ceiling_and_what_share_of_it_labels_reach(tmp_path: Path) -> None:
    from alfm.report.html.known import Known
    from alfm.report.html.sections.ceiling import ceilings, share_of_ceiling
    from alfm.report.html.sections.learning import learning_curves
    from alfm.results.load import load_runs
    from alfm.results.setting import settings_of

    (folder,) = made_up(tmp_path, {"margins": 0.0}, seeds=2, classifier={"strength": 1})
    probe = {
        "format": 1, "cache_fingerprint": "digits-pixels", "splits": {}, "classifier": {"strength": 1},
        "labels": 100, "items": 100,
        "how": "all 100 labels", "head": {"accuracy": 0.7}, "knn": {"k": 5, "accuracy": 0.6}, "dim": 2, "classes": 2,
        "test": 10, "seconds": 0.1, "version": "0",
    }  # fmt: skip
    (folder.parent / "probe.json").write_text(json.dumps(probe))
    (setting,) = settings_of(load_runs(tmp_path))
    known = Known(setting, "accuracy", "x")
    assert ceilings(known) == {"head on all 100 labels": 70.0, "nearest neighbours": 60.0}
    table = share_of_ceiling(known)
    assert table is not None
    mean = setting.shared.groupby("num_labeled")["accuracy"].mean()
    assert table.rows[0][-2].value == pytest.approx(mean[50] / 0.7)
    assert table.rows[0][-1].value == min(n for n, value in mean.items() if value >= 0.95 * 0.7)
    (folder.parent / "probe.json").write_text(json.dumps(probe | {"cache_fingerprint": "another"}))
    renamed = Known(setting, "accuracy", "x")
    assert ceilings(renamed) == {} and "another cache of that name" in " ".join(learning_curves(renamed, {}).lead)
    (folder.parent / "probe.json").write_text("{")
    unread = " ".join(learning_curves(Known(setting, "accuracy", "x"), {}).lead)
    assert "No ceiling: " in unread and "delete it, and run python -m alfm.probe again" in unread
    (folder.parent / "probe.json").write_text(json.dumps(probe | {"classifier": {"strength": 2}}))
    another = Known(setting, "accuracy", "x")  # neighbours have no head
    assert ceilings(another) == {"nearest neighbours": 60.0} and share_of_ceiling(another) is None
    assert "another head" in " ".join(learning_curves(another, {}).lead)


def test_intervals_of_two_seeds_do_not_press_curves_into_a_line() -> None:
    wide = Series("margins", [10, 20], [50.0, 60.0], [3.0, 40.0])
    picture = Lines("x", "Curves", "accuracy, %", [wide, Series("random", [10], [45.0], [math.nan])], PERCENT)
    assert picture.span == (30.0, 75.0)
    assert draw(picture, {})["layout"]["yaxis"]["range"] == [30.0, 75.0]
    assert "cuts them off" in " ".join(picture.table().notes)
    narrow = dataclasses.replace(picture, series=[dataclasses.replace(wide, half=[3.0, 5.0])])
    assert narrow.span is None and "range" not in draw(narrow, {})["layout"]["yaxis"]
    assert not any("cuts" in note for note in narrow.table().notes)
    with_zero = dataclasses.replace(picture, zero=True)  # nothing is cut off where the zero line needs the room
    assert with_zero.span is None


def test_a_matrix_over_data_sets_names_what_was_not_run_where(tmp_path: Path) -> None:
    from alfm.report.html.known import Known
    from alfm.report.html.sections import across
    from alfm.results.load import load_runs
    from alfm.results.setting import settings_of

    made_up(tmp_path / "logs", {"random": 0.0, "margins": 0.03, "badge": 0.01}, seeds=6, data="a")
    made_up(tmp_path / "logs", {"random": 0.0, "margins": 0.03}, seeds=6, data="b")
    (group,) = across.together([Known(one, "accuracy", "x") for one in settings_of(load_runs(tmp_path / "logs"))])
    (matrix,) = (one for one in across.chapter(group).sections if one.anchor.endswith("-matrix"))
    assert "Not run: badge on b" in " ".join(matrix.lead)


def test_runs_that_rules_ended_are_not_said_to_be_whole(tmp_path: Path) -> None:
    from alfm.report.html.known import Known
    from alfm.report.html.sections.stopping import stopping
    from alfm.results.load import load_runs
    from alfm.results.setting import settings_of

    def lead(**config: object) -> str:
        logs = tmp_path / str(len(config))
        made_up(logs, {"margins": 0.0}, seeds=2, **config)
        (setting,) = settings_of(load_runs(logs))
        section = stopping(Known(setting, "accuracy", "x"))
        assert section is not None
        return " ".join(section.lead)

    assert lead().startswith("Nothing ended these runs")
    assert lead(stopping={"mode": "stop", "delta_f": {"threshold": 0.9}}).startswith("Rules did end some of these runs")


def test_backbones_replays_oracles_and_what_was_added_are_told(backbones: Path) -> None:
    text = backbones.read_text(encoding="utf-8")
    for words in ("Which backbone? a", "Every two backbones", "a: of 2 backbones pixels is best, with margins",
                  "What was picked, learnt from by another", "Nobody asked for random", "boss (oracle)"):  # fmt: skip
        assert words in text, words
    anchors = re.findall(r' id="([^"]+)"', text)
    assert len(anchors) == len(set(anchors))


def test_a_replay_stands_beside_its_original(backbones: Path) -> None:
    table = backbones.with_name("report_files") / "transfer-1-table.csv"
    header, *rows = csv.reader(table.read_text().splitlines())
    first, again = "margins, on pixels with a logistic head", "margins, picked with pixels, on another with a logistic"
    assert header[2] == first and header[3].startswith(again) and [row[0] for row in rows] == ["20", "30", "40", "50"]
    for row in rows:
        assert float(row[4]) == pytest.approx(100 * (float(row[3]) - float(row[2])))


def test_a_critical_difference_diagram_over_six_caches(tmp_path: Path) -> None:
    from alfm.report.curves import styles_of
    from alfm.report.html.known import Known
    from alfm.report.html.sections import across
    from alfm.results.load import load_runs
    from alfm.results.setting import settings_of

    for i, data in enumerate("abcdef"):
        made_up(tmp_path / "logs", {"random": 0.0, "margins": 0.03, "badge": 0.01 * (i % 2)}, seeds=2, data=data)
    settings = list(settings_of(load_runs(tmp_path / "logs")))
    (group,) = across.together([Known(one, "accuracy", "x") for one in settings])
    (diagram,) = (block for section in across.chapter(group).sections for block in section.blocks
                  if isinstance(block, Diagram))  # fmt: skip
    assert list(diagram.ranks) == ["margins", "badge", "random"] and diagram.ranks["margins"] == 1.0
    svg, pdf = paper.write_picture(diagram, styles_of(settings), tmp_path / "ranks")
    text = "".join(ElementTree.parse(svg).getroot().itertext())
    assert pdf.read_bytes().startswith(b"%PDF")
    assert f"critical difference {diagram.critical_difference:.2f}" in text
    for name, rank in diagram.ranks.items():
        assert f"{name}, {rank:.1f}" in text


def test_what_a_tuned_run_chose_and_gained(digits_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alfm.al_train import main as al_train
    from alfm.report.html.known import Known
    from alfm.report.html.sections import tuning
    from alfm.results.load import load_runs
    from alfm.results.setting import settings_of

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOG_DIR", "logs")
    words = [f"cache={digits_cache}", "query_strategy=random", "init_strategy=random", "iterations.n=4", "seeds=[1,2]",
             "device=cpu"]  # fmt: skip
    for tune in ("tune=true", "tune=false"):
        assert al_train([*words, tune]) == 0
    chapter = tuning.chapter([Known(one, "accuracy", "x") for one in settings_of(load_runs("logs"))])
    assert chapter is not None
    gains, chosen = (section.blocks[0] for section in chapter.sections)
    assert isinstance(gains, Table) and isinstance(chosen, Table)
    assert gains.rows[0][3].value == 2  # seeds
    assert {row[3].value for row in chosen.rows} == {"strength"} and [row[4].value for row in chosen.rows] == [
        1,
        2,
        3,
        4,
    ]
    assert chosen.rows[0][5].value == 1.0  # below three labels per class the default is kept


def test_curves_of_one_picture_look_different() -> None:
    from alfm.report.html.page import _styles
    from alfm.report.html.parts import Chapter, Section

    def lines(*names: str) -> Lines:
        return Lines("a", "A", "y", [Series(name, [1], [1.0], [0.1]) for name in names], PERCENT)

    found = _styles(
        [], [Chapter("c", "C", [Section("s", "S", [], [lines("original", "one"), lines("original", "two")])])]
    )
    assert found["original"] != found["one"] and found["original"] != found["two"]
