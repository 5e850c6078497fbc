from __future__ import annotations

import sys

import pytest

from alfm import extract
from alfm.datasets.places import store_of
from alfm.errors import UserError


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://bucket/photos", "s3fs"),
        ("gs://bucket/photos", "gcsfs"),
        ("hf://datasets/org/set", "huggingface_hub"),
        ("abfs://container/photos", "adlfs"),
        ("sftp://host/photos", "paramiko"),
    ],
)
def test_a_store_whose_package_is_missing(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import _registry

    kind = url.partition("://")[0]
    monkeypatch.delitem(_registry, kind, raising=False)  # where it has been met before
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    with pytest.raises(UserError) as caught:
        store_of(url)
    assert str(caught.value) == f"{url}: {kind}:// needs a package: pip install {package}."


def test_it_is_said_of_items_and_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert extract.main(["dataset=image_folder", "dataset.root=gs://b/photos", "device=cpu"]) == 1
    assert "Error: gs://b/photos: gs:// needs a package: pip install gcsfs." in capsys.readouterr().err
    assert extract.main(["cache.upload=gs://b/features", "device=cpu"]) == 1
    assert "gs:// needs a package: pip install gcsfs." in capsys.readouterr().err
    assert extract.main(["dataset=image_folder", "dataset.root=qs://b/photos", "device=cpu"]) == 1
    assert "qs:// is not known to fsspec, see the spelling." in capsys.readouterr().err
