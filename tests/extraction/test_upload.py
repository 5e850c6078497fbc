"""Items from an object store and caches to one: what a local extraction makes, also after a kill in the middle."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from standins import write_configs
from test_kill import ROOT, same, wait_for

from alfm import extract
from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder
from alfm.datasets.folder import folder
from alfm.datasets.tar_shards import tar_shards

WORDS = ["device=cpu", "threads=1", "num_workers=0", "batch_size=4", "part_size=4", "cache.dtype=float32"]


def pictures(root: Path, count: int = 24) -> Path:
    """Class folders of PNG files, a hidden one and one that is no item among them."""
    rng = np.random.default_rng(0)
    for number in range(count):
        file = root / ("train" if number % 4 else "test") / ("cat" if number % 3 else "dog") / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    (root / "train/cat/.hidden.png").write_bytes(b"")
    (root / "train/cat/notes.txt").write_text("none")
    return root


@pytest.fixture
def memory() -> Iterator[str]:
    store = fsspec.filesystem("memory")
    yield "memory://bucket"
    store.rm("/", recursive=True)


def up(root: Path, url: str) -> str:
    store, path = fsspec.core.url_to_fs(url)
    store.put(str(root), path, recursive=True)
    return url


def shards(root: Path, pictures: Path) -> Path:
    root.mkdir()
    for split in ("train", "test"):
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for number, file in enumerate(sorted((pictures / split).rglob("[0-9]*.png"))):
                for name, raw in (("png", file.read_bytes()), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number:03}.{name}")
                    member.size = len(raw)
                    archive.addfile(member, io.BytesIO(raw))
    return root


def test_data_sets_on_a_store_are_those_on_a_disk(tmp_path: Path, memory: str) -> None:
    photos = pictures(tmp_path / "photos")
    url = up(photos, f"{memory}/photos")
    tars = shards(tmp_path / "tars", photos)
    splits = {"train": "train-*.tar", "test": "test-{0..0}.tar"}
    for here, there in (
        (folder(str(photos)), folder(url)),
        (folder(str(photos), exclude=["cat"]), folder(url, exclude=["cat"])),
        (tar_shards(splits, str(tars)), tar_shards(splits, up(tars, f"{memory}/tars"))),
    ):
        assert here.fingerprint == there.fingerprint and here.name == there.name and here.left_out == there.left_out
        assert here.classes == there.classes
        for name, split in here.splits.items():
            assert split.ids == there.splits[name].ids
            for row in range(len(split)):
                assert np.array_equal(np.array(split.load(row)), np.array(there.splits[name].load(row)))


def words(tmp_path: Path, root: str, *others: str) -> list[str]:
    configs = write_configs(tmp_path / "conf")
    return ["--config-dir", str(configs), "dataset=image_folder", f"dataset.root={root}", "model=tiny", *WORDS, *others]


def attributes_but(path: Path, *names: str) -> dict[str, str]:
    return {key: str(value) for key, value in open_cache(path).attributes.items() if key not in names}


def test_from_a_store_to_a_store_also_after_a_failure(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second machine has an empty folder: it goes on with the parts on the store, the third has nothing to do."""
    photos = pictures(tmp_path / "photos")
    url, store = up(photos, f"{memory}/photos"), fsspec.filesystem("memory")

    def on(machine: str, *others: str) -> Path:
        monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / machine))
        assert extract.main([*words(tmp_path, url if others else str(photos)), *others]) == 0
        return tmp_path / machine / "photos/tiny.h5"

    local = on("local")
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "first"))
    upload = f"cache.upload={memory}/features"
    assert extract.main([*words(tmp_path, url, upload), "shard=0/2"]) == 0
    begun = {path.rpartition("/")[2] for path in store.find("/bucket/features")}
    assert "manifest.json" in begun and len(begun) == 1 + 4
    some = sorted(path for path in store.find("/bucket/features") if path.endswith(".part"))
    missing = next(name for name in (f"part-{i:06}.part" for i in range(9)) if name not in begun)
    store.pipe_file(f"{some[0].rpartition('/')[0]}x/{missing}", store.cat_file(some[0]))  # of a run begun at once
    log = tmp_path / "passes.log"
    second = on("second", upload, f"model.log={log}")
    assert len(log.read_text().split("\n")) - 1 == 3  # parts that were not up there
    same(second, local)
    assert store.find("/bucket/features") == ["/bucket/features/photos/tiny.h5"]
    assert store.cat_file("/bucket/features/photos/tiny.h5") == second.read_bytes()
    own = ("run", "created", "metadata_checksum", "dataset_config", "model_config")
    assert attributes_but(second, *own) == attributes_but(local, *own)
    capsys.readouterr()
    assert on("third", upload).read_bytes() == second.read_bytes()
    assert "Already cached" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("cache.upload=folder", "give a URL such as"),
        ("cache.upload=memory://", "give a URL such as"),
        ("cache.upload=nowhere://bucket", "nowhere:// is not known to fsspec"),
        ("cache.upload=ftp://joe:hunter2@127.0.0.1:1/up", "ftp://127.0.0.1:1/up/photos/tiny.h5 cannot be reached"),
        ("dataset.root=ftp://joe:hunter2@127.0.0.1:1/up", "ftp://127.0.0.1:1/up cannot be reached"),
        ("dataset.root=nowhere://bucket", "nowhere:// is not known to fsspec"),
        ("dataset.root=memory://empty", "is not a folder"),
    ],
)
def test_a_store_that_is_not_there_is_said(
    tmp_path: Path, word: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract.main([*words(tmp_path, str(pictures(tmp_path / "photos"))), word]) == 1
    said = capsys.readouterr().err
    assert says in said and "hunter2" not in said


def test_another_cache_of_the_same_size_is_sent(tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "here"))
    typed = words(tmp_path, str(pictures(tmp_path / "photos", 8)), f"cache.upload={memory}/up", "force=true")
    sizes = set()
    for seed in (0, 1):
        assert extract.main([*typed, f"model.seed={seed}"]) == 0
        here = (tmp_path / "here/photos/tiny.h5").read_bytes()
        assert fsspec.filesystem("memory").cat_file("/bucket/up/photos/tiny.h5") == here
        sizes.add(len(here))
    assert len(sizes) == 1


def test_what_is_up_there_in_part_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a mounted folder a kill leaves a beginning: of a part, or of the cache."""
    typed = words(tmp_path, str(pictures(tmp_path / "photos", 24)), f"cache.upload=file://{tmp_path}/up")
    up = tmp_path / "up/photos/tiny.h5"
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "first"))
    assert extract.main([*typed, "shard=0/2"]) == 0
    part = sorted(up.with_name("tiny.h5.parts").glob("*/part-*.part"))[0]
    part.write_bytes(part.read_bytes()[:-40])
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "second"))
    assert extract.main(typed) == 0
    whole = up.read_bytes()
    up.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "third"))
    assert extract.main(typed) == 0
    same(tmp_path / "third/photos/tiny.h5", tmp_path / "second/photos/tiny.h5")
    assert up.read_bytes() == (tmp_path / "third/photos/tiny.h5").read_bytes()


def test_folders_of_this_machine_are_no_urls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURE_CACHE_DIR", "s3://bucket/features")
    assert extract.main([]) == 1
    assert "cache.upload=URL" in capsys.readouterr().err


@pytest.mark.slow
def test_s3_also_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against moto's server: the first process is killed, and its machine's folder is gone with it."""
    for package in ("moto", "s3fs"):
        pytest.importorskip(package, reason="pip install 'alfm[test-s3]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    given = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_ENDPOINT_URL": address}
    given |= {"AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def answers() -> bool:
            with socket.socket() as asked:
                return asked.connect_ex(("127.0.0.1", port)) == 0

        wait_for(answers)
        store = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
        store.mkdir("bucket")
        photos = pictures(tmp_path / "photos", 60)
        up(photos, "s3://bucket/photos")
        monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "local"))
        assert extract.main(words(tmp_path, str(photos))) == 0
        typed = words(tmp_path, "s3://bucket/photos", "cache.upload=s3://bucket/features", "num_workers=1")
        command = [sys.executable, "-m", "alfm.extract", *typed]
        gone = subprocess.Popen(
            [*command, "model.delay=1"], env=os.environ | {"FEATURE_CACHE_DIR": str(tmp_path / "gone")}
        )
        wait_for(lambda: len(store.find("bucket/features")) > 3, 300)
        gone.send_signal(signal.SIGKILL)
        gone.wait()
        before = len(store.find("bucket/features"))
        assert before < 17
        log = tmp_path / "passes.log"
        subprocess.run(
            [*command, f"model.log={log}"], env=os.environ | {"FEATURE_CACHE_DIR": str(tmp_path / "next")}, check=True
        )
        assert len(log.read_text().splitlines()) <= 16 - (before - 1)
        same(tmp_path / "next/photos/tiny.h5", tmp_path / "local/photos/tiny.h5")
        assert store.find("bucket/features") == ["bucket/features/photos/tiny.h5"]
        store.get_file("bucket/features/photos/tiny.h5", str(tmp_path / "down.h5"))
        assert (tmp_path / "down.h5").read_bytes() == (tmp_path / "next/photos/tiny.h5").read_bytes()
        assert PartsFolder(tmp_path / "next/photos/tiny.h5").finished_by_another()
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("where", ["isdir", "ls", "exists", "put_file"])
def test_a_store_that_does_not_answer_is_said_in_a_sentence(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """Whatever its client raises: missing credentials are no OSError."""

    class NoCredentials(Exception):
        pass

    def refused(*args: object, **options: object) -> None:
        raise NoCredentials("Unable to locate credentials")

    monkeypatch.setenv("FEATURE_CACHE_DIR", str(tmp_path / "features"))
    photos = up(pictures(tmp_path / "photos", 8), f"{memory}/photos")
    words = ["dataset=image_folder", f"dataset.root={photos}", "model=pixels", f"cache.upload={memory}/up", *WORDS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), where, refused)
        assert extract.main(words) == 1
    said = capsys.readouterr().err
    assert "NoCredentials: Unable to locate credentials" in said and "Traceback" not in said
    assert not list((tmp_path / "features").rglob("*.h5")) or where == "put_file"
