"""What README and docs say is true: commands run, links lead somewhere, the architecture page names what is there.

A block of shell commands runs as typed, one after the other, in a folder of a newcomer's. The word after `sh` marks the
others: `stand-in`, on files of the reader's that `stand_ins` makes; `compose`, what downloads: composed with `--cfg`;
`make`, what installs: its targets and extras are there. A block whose first line is a path in a comment is that file.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from PIL import Image

from alfm.metrics import METRICS
from alfm.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, *sorted((ROOT / "benchmarks").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: the page, the line it begins at, its language, its mark and its text."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def file(self) -> str | None:
        """The path in a first line such as `# mypackage/nearest.py`."""
        found = re.match(r"# ([\w/.-]+\.\w+)\n", self.text)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w+) ?([\w-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text[: found.start()].count("\n") + 1, *found.groups())


BLOCKS = [block for page in PAGES for block in blocks(page)]


def stand_ins(folder: Path) -> None:
    """The files of readers that the pages name: embeddings, an old cache, photographs, labels of some digits."""
    (folder / "labels.csv").write_text("digits/3,three\ndigits/5,five\ndigits/6,six\n")
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    points = (rng.normal(size=(60, 8)) + 2 * np.eye(8)[labels]).astype(np.float32)
    np.savez(folder / "vectors.npz", X=points, y=labels)
    for partition in (1, 2):
        place = folder / "data_indexes" / "DIGITS" / f"partition_{partition}"
        place.mkdir(parents=True)
        for name, numbers in zip(("lSet", "valSet", "uSet"), np.split(rng.permutation(1257), [20, 120]), strict=True):
            np.save(place / f"{name}_DIGITS.npy", numbers)
    (folder / "old").mkdir()
    with h5py.File(folder / "old" / "dino_vit_g14.hdf", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/features"], file[f"{split}/labels"] = points, labels[:, None]
    for index in range(20):
        path = folder / "photos" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)
    (folder / "unlabelled").mkdir()
    for index in range(40):
        path = folder / "unlabelled" / f"{index:02}.png"
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)
    rows = [f"{index:02}.png,{'cat' if index % 2 else 'dog'}" for index in range(10)]
    (folder / "labelled.csv").write_text("\n".join(["id,label", *rows]) + "\n", encoding="utf-8")


def run(words: list[str]) -> int:
    """`python -m MODULE ARGUMENTS` in this process: the exit status."""
    assert words[:2] == ["python", "-m"], f"{shlex.join(words)}: mark a block that is not to be run"
    spec = importlib.util.find_spec(words[2])
    assert spec is not None, f"there is no {words[2]}"
    module = importlib.import_module(f"{words[2]}.__main__" if spec.submodule_search_locations else words[2])
    return module.main(words[3:])


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory) -> Path:
    """A folder with the digits' cache, as the first command makes it, the stand-ins and the files of the pages."""
    folder = tmp_path_factory.mktemp("newcomer")
    stand_ins(folder)
    for block in BLOCKS:
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    with pytest.MonkeyPatch.context() as patch:
        at_home(folder, patch)
        assert run(shlex.split("python -m alfm.extract dataset=digits model=pixels")) == 0
        assert run(shlex.split("python -m alfm.al_train query_strategy=random seeds=[1] iterations.n=2")) == 0
    shutil.copytree(folder / "logs", folder / "first logs")
    return folder


def at_home(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """In the newcomer's folder, without the runs of other blocks: what reads all runs would take ever longer."""
    if (folder / "first logs").exists():
        shutil.rmtree(folder / "logs")
        shutil.copytree(folder / "first logs", folder / "logs")
    patch.chdir(folder)
    patch.syspath_prepend(folder)
    patch.setenv("COLUMNS", "120")
    for name in ("DATASET_DIR", "MODEL_CACHE_DIR", "FEATURE_CACHE_DIR", "LOG_DIR"):
        patch.delenv(name, raising=False)


def commands(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "sh"], ids=str)
def test_commands_work(block, newcomer, monkeypatch, capsys):
    at_home(newcomer, monkeypatch)
    for words in commands(block.text):
        if block.mark == "make":
            assert there(words), shlex.join(words)
            continue
        assert block.mark in ("", "stand-in", "compose"), f"{block}: no such mark"
        status = run([*words, *(["--cfg"] if block.mark == "compose" else [])])
        assert status == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


def there(words: list[str]) -> bool:
    """Is what an installing command names there: a target of the Makefile, its environment?"""
    makefile = (ROOT / "Makefile").read_text()
    if words[0] == "make":
        return re.search(rf"^{words[1]}:", makefile, re.MULTILINE) is not None
    return words == [".", ".venv/bin/activate"] and "-m venv .venv" in makefile


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "python" and not one.file], ids=str)
def test_python_works(block, newcomer, monkeypatch):
    at_home(newcomer, monkeypatch)
    known = dict(METRICS)
    try:
        exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    finally:  # a measure of the page's own
        METRICS.clear()
        METRICS.update(known)


def test_every_block_is_of_a_kind_that_is_looked_at():
    known = {"sh", "python", "text"}
    for block in BLOCKS:
        assert block.language in known or block.file, f"{block}: {block.language}"
    fences = sum(page.read_text().count("\n```") + page.read_text().startswith("```") for page in PAGES)
    assert fences == 2 * len(BLOCKS), "a block without a language"


def settings() -> set[str]:
    """What may stand before "=": groups, keys of the two commands, and options of the groups with and without them."""
    known: set[str] = set()
    for path in (ROOT / "conf").rglob("*.yaml"):
        group = path.parent.relative_to(ROOT / "conf").as_posix()
        node = yaml.safe_load(path.read_text())
        known |= {group, *node, *(f"{group}.{key}" for key in node)}
        known |= {f"{key}.{inner}" for key, value in node.items() if isinstance(value, dict) for inner in value}
    for launcher in (JobLibLauncherConf, SlurmQueueConf):
        known |= {"hydra/launcher", *(f"hydra.launcher.{option.name}" for option in fields(launcher))}
    return known


def test_settings_that_are_named_are_there():
    known = settings() | {"group", "key", "OMP_NUM_THREADS"}
    for page in PAGES:
        outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for words in re.findall(r"`([^`\n]+)`", outside):
            for key in re.findall(r"(?:^| )\+*([\w./]+)=", words):
                assert key in known or key.endswith("KEY"), f"{page.name}: {words}"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (__version__, project["license"])
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_extras_are_there():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        name for page in PAGES for name in re.findall(r"`\[(\w+)\]`|alfm\[(\w+)\]", page.read_text()) for name in name
    }
    assert named - {""} <= set(known)


# ---- links -----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made on GitHub."""
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for place, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        target = (page.parent / place).resolve() if place else page
        assert target.exists() and target.is_relative_to(ROOT), place
        if anchor:
            assert anchor in anchors(target), f"{place}#{anchor}"


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 250
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT).as_posix()})" in readme, page


def test_paths_that_are_named_are_there():
    """From the root, on pages in backquotes, and modules and notes that docstrings and comments point to."""
    for page in LINKED:
        for path in re.findall(r"`((?:alfm|conf|tests|docs|benchmarks)/[\w/.-]*)`", page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{page.relative_to(ROOT)}: {path}"
    for source in (ROOT / "alfm").rglob("*.py"):
        for path in re.findall(r"\b(?:alfm|benchmarks|docs)/[\w/-]+\.\w+", source.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{source.relative_to(ROOT)}: {path}"


# ---- architecture ----------------------------------------------------------------------------------------------------


def test_the_architecture_page_names_what_is_there():
    """In its table: a folder or module, then files in it; and all of the package is there."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set()
    for first, rest in re.findall(r"^\| (`[^|]+)\|(.*)\|$", text, re.MULTILINE):
        for name in re.findall(r"`([\w/.]+)`", first):
            place = ROOT / name
            assert place.exists(), name
            named.add(place)
        for file in re.findall(r"`([\w/]+\.\w+|[\w/]+/)`", rest):
            assert (place / file).exists(), f"{place}/{file}"
            named.add(place / file)
    there = {path for path in (ROOT / "alfm").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    there -= {ROOT / "alfm" / "__init__.py"}
    assert not {path.name for path in there - named}, "not on the page"


# ---- words -----------------------------------------------------------------------------------------------------------

SOURCES = [path for name in ("alfm", "benchmarks", "conf", "docs", "tests") for path in (ROOT / name).rglob("*")]
TEXTS = sorted(path for path in [*SOURCES, *PAGES, ROOT / "Makefile"] if path.suffix in (".py", ".md", ".yaml", ""))


def test_text_speaks_of_the_project_alone():
    """No plans, tickets or places that a reader of the repository does not have."""
    foreign = re.compile(r"\b[Ii]ssue #?\d|\bMETHODS\b|\bREDESIGN\b|\bDESIGN\.md|/(tmp|work)/")
    for path in TEXTS:
        if path.is_file() and path != Path(__file__):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert not foreign.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_measurements_lie_in_the_benchmarks():
    """Docstrings say why in a sentence; seconds, machines and settings of a measurement are told in benchmarks/."""
    measured = re.compile(r"\b(EPYC|GFLOP|CPU seconds|busy machine|measured (here|beside))|\d (ms|us|ns|µs|seconds)\b")
    for path in sorted((ROOT / "alfm").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not measured.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
