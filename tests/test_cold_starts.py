from __future__ import annotations

import pytest
import yaml

from alfm.al_train import main


def composed(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--cfg"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "own"),
    [("typiclust", "TypiClust"), ("probcover", "ProbCover"), ("maxherding", "MaxHerding"), ("dropquery", "Centroid")],
)
def test_a_strategy_brings_its_cold_start_unless_another_is_given(capsys, name, own):
    assert composed(capsys, f"query_strategy={name}")["init_strategy"]["_target_"].endswith(f".{own}")
    given = composed(capsys, f"query_strategy={name}", "init_strategy=random")
    assert given["init_strategy"]["_target_"].endswith(".Random")
    assert composed(capsys, "query_strategy=margins")["init_strategy"]["_target_"].endswith(".Random")
