"""A cache on an object store: `cache.upload=s3://bucket/features`.

    <url>/<dataset>/<model>.h5                          the finished cache
    <url>/<dataset>/<model>.h5.parts/manifest.json      until then: what the run was begun with
    <url>/<dataset>/<model>.h5.parts/<run>/part-*.part  and its finished parts; of two begun at once, each has its own

Work is done in FEATURE_CACHE_DIR as ever: claims stay there, since they rest on hard links and exclusive creation. What
is finished goes up as it is; a machine with an empty folder fetches it first and goes on from there. A file that is up
there in part, since its sender was stopped and not every store writes whole or not at all, is as good as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from alfm.cache.layout import METADATA_CHECKSUM
from alfm.cache.parts import PartsFolder, read_part
from alfm.datasets.places import answered, is_url, shown, store_of
from alfm.errors import UserError
from alfm.files import replacing


class Upload:
    """The place of one cache on a store; without a URL nothing is there and nothing is done."""

    def __init__(self, url: str | None, target: Path) -> None:
        """`target`: where the cache lies on this machine. Raises UserError for a URL that leads nowhere."""
        if url is not None and not (is_url(url) and url.partition("://")[2].strip("/")):
            raise UserError(f"cache.upload={url}: give a URL such as cache.upload=s3://bucket/features.")
        self.target = target
        self.url = None if url is None else f"{url.rstrip('/')}/{target.parent.name}/{target.name}"
        if self.url is not None:
            self._store, self._cache = store_of(self.url)
            self._parts = f"{self._cache}.parts"

    def fetch(self) -> None:
        """Get what is up there and not here: the cache, or the manifest and the finished parts of one begun."""
        if self.url is None or self.target.exists():
            return
        with self._asked("read"):
            self._store.invalidate_cache()
            self.target.parent.mkdir(parents=True, exist_ok=True)
            if self._signature():
                self._get(self._cache, self.target)
            elif self._store.exists(f"{self._parts}/manifest.json"):
                self._fetch_parts()

    def _fetch_parts(self) -> None:
        with PartsFolder(self.target) as folder:
            manifest = json.loads(self._store.cat_file(f"{self._parts}/manifest.json"))
            there = folder.read_manifest()
            if there is None:
                folder.create_manifest(manifest)
            elif there["run"] != manifest["run"]:
                return  # begun anew here, and it will be up there too
            for path in self._store.glob(f"{self._parts}/{manifest['run']}/part-*.part"):
                part = folder.path / path.rpartition("/")[2]
                if not part.exists():
                    self._get(path, part)
                    try:
                        read_part(part, with_features=False)
                    except UserError:
                        part.unlink()  # it is made again

    def begun(self, folder: PartsFolder) -> None:
        """Send the manifest, and those parts that are here and not up there; another run's go."""
        if self.url is None:
            return
        manifest, own = folder.read_manifest(), self._own_parts(folder)
        with self._asked("write"):
            self._store.invalidate_cache()
            place = f"{self._parts}/manifest.json"
            if self._store.exists(place) and json.loads(self._store.cat_file(place))["run"] != (manifest or {})["run"]:
                self._store.rm(self._parts, recursive=True)
            self._make_room(place)
            self._store.pipe_file(place, json.dumps(manifest).encode())
            up = {path.rpartition("/")[2] for path in self._store.glob(f"{own}/part-*.part")}
            for index in folder.done():
                if folder.part_path(index).name not in up:
                    self.finished_part(folder, index)

    def finished_part(self, folder: PartsFolder, index: int) -> None:
        """Send a part that is done."""
        if self.url is not None:
            part = folder.part_path(index)
            with suppress(FileNotFoundError):  # somebody has put the cache together meanwhile
                self._put(part, f"{self._own_parts(folder)}/{part.name}")

    def _own_parts(self, folder: PartsFolder) -> str:
        """Where the parts of the run that was begun here lie; FileNotFoundError where it is over."""
        manifest = folder.read_manifest()
        if manifest is None:
            raise FileNotFoundError(folder.path)
        return f"{self._parts}/{manifest['run']}"

    def finished(self) -> None:
        """Send the cache, and remove the parts up there."""
        if self.url is None:
            return
        self._store.invalidate_cache()
        with h5py.File(self.target) as here:
            own = here.attrs.get(METADATA_CHECKSUM)
        with self._asked("write"):
            if own is None or self._signature() != own:
                self._put(self.target, self._cache)
            if self._store.exists(self._parts):
                with suppress(FileNotFoundError):  # another worker was quicker
                    self._store.rm(self._parts, recursive=True)

    def _signature(self) -> str | None:
        """What tells the cache up there from others, of whatever run; None where there is no whole one."""
        if not self._store.exists(self._cache):
            return None
        with self._store.open(self._cache, "rb") as file:
            try:
                with h5py.File(file) as there:
                    return there.attrs.get(METADATA_CHECKSUM)
            except OSError:
                return None

    def _make_room(self, path: str) -> None:
        """The folder of a path, where a store has folders."""
        kinds = (self._store.protocol,) if isinstance(self._store.protocol, str) else self._store.protocol
        if {"file", "sftp", "ftp", "smb", "webhdfs", "hdfs"} & set(kinds):
            self._store.makedirs(path.rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            with answered():
                yield
        except OSError as error:
            raise self._failed(what, error) from error

    def _get(self, path: str, file: Path) -> None:
        with replacing(file) as out:
            self._store.get_file(path, out.name)  # by name: not every store takes an open file

    def _put(self, file: Path, path: str) -> None:
        try:
            with answered():
                self._make_room(path)
                self._store.put_file(str(file), path)
        except OSError as error:
            if not file.exists():
                raise
            raise self._failed("write", error) from error

    def _failed(self, what: str, error: OSError) -> UserError:
        reason = str(error.strerror or error).strip().partition("\n")[0]
        return UserError(
            f"cache.upload: cannot {what} {shown(str(self.url))}: {reason}; the same command goes on from here."
        )
