"""What users import by a package's name: there, lazily, and the same for a type checker."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FACES = ["alfm", "alfm.backbones", "alfm.datasets", "alfm.features", "alfm.heads", "alfm.stopping", "alfm.strategies"]
EAGER = ["alfm.cache", "alfm.posteriors", "alfm.report", "alfm.results"]


@pytest.mark.parametrize("name", FACES + EAGER)
def test_every_public_name_is_there(name: str) -> None:
    face = importlib.import_module(name)
    assert face.__all__ and set(face.__all__) <= set(dir(face))
    for public in face.__all__:
        assert getattr(face, public) is not None
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = face.nothing_of_that_name


@pytest.mark.parametrize("name", FACES)
def test_type_checkers_see_what_is_loaded(name: str) -> None:
    face = importlib.import_module(name)
    tree = ast.parse(Path(face.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    seen = {node.module: tuple(sorted(one.name for one in node.names)) for node in block.body}
    assert seen == {module: tuple(sorted(names)) for module, names in face._HOMES.items()}
    assert set(face.__all__) == {public for names in seen.values() for public in names}


@pytest.mark.parametrize("name", FACES)
def test_a_face_alone_loads_nothing_heavy(name: str) -> None:
    heavy = "torch numpy pandas sklearn h5py"
    code = f"import sys, {name}; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_strategy_with_a_config_is_given_out() -> None:
    import alfm.strategies
    from alfm.config.paths import conf_dir

    words = [path.read_text() for path in (conf_dir() / "query_strategy").glob("*.yaml")]
    targets = [line.rpartition(".")[2].strip() for text in words for line in text.splitlines() if "_target_" in line]
    ours = {name for name in targets if hasattr(alfm.strategies, name)}
    assert len(ours) > 30 and set(targets) - ours <= {"DropoutPosterior", "Ensemble", "Laplace"}
