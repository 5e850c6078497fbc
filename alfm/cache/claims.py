"""Claims: how any number of processes and hosts divide work over one folder, with no server and no locks.

    workers/<owner>    one small file per worker, touched while the worker lives
    claims/<key>.0     a claim: a hard link to its owner's file, so it carries who and when last alive

What it relies on, also over NFS: `link` fails when the name exists and is atomic on the server (a lost reply is
recognised by looking whether the link is there after all). Times are compared as the file server tells them: "now" is
the time of one's own file just after touching it, so clocks of hosts need not agree. Attribute caches of NFS clients
may be a minute old, so keep the lease well above that. No locks (`flock`) are used.

A claim is dead when its owner's process is gone (same machine: noticed at once) or its file was not touched for the
lease. Taking it over makes the next generation (`<key>.1`), again by `link`, so of several takers one wins. What a
stalled owner does when it wakes up late must be harmless: a part is written aside and renamed, with the same bytes.

On file systems without hard links (exFAT, some FUSE) claims are files created with O_EXCL and touched one by one.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

from alfm.errors import UserError

_SAFE_LEASE = 10.0
"""Seconds: below this a busy worker could look dead."""


class Claims:
    """Claims in `folder` as one worker sees and makes them. `close` gives all of its own back at once."""

    def __init__(self, folder: Path, lease: float) -> None:
        if lease < _SAFE_LEASE:
            raise UserError(f"lease_seconds={lease}: give at least {_SAFE_LEASE:.0f}, or live workers would look dead.")
        self.lease = lease
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._workers, self._claims = folder / "workers", folder / "claims"
        self._me: Path | None = None
        self._touched: list[Path] = []
        self._stop = threading.Event()

    def claim(self, key: str) -> bool:
        """Try to own `key`. False while somebody alive owns it. `FileNotFoundError` when the folder is gone."""
        me = self._live()
        newest = self.newest().get(key, -1)
        if newest >= 0 and self.held(key, newest):
            return False
        claim = self._claims / f"{key}.{newest + 1}"
        won = link(me, claim)
        if won and not claim.samefile(me):
            self._touched.append(claim)
        return won

    def newest(self) -> dict[str, int]:
        """The newest generation of every claim there is."""
        found: dict[str, int] = {}
        for name in os.listdir(self._claims):
            key, _, generation = name.rpartition(".")
            if key and generation.isdecimal():  # NFS leaves .nfs... files of its own
                found[key] = max(found.get(key, -1), int(generation))
        return found

    def held(self, key: str, generation: int) -> bool:
        """Whether the owner of that claim, possibly ourselves, is alive."""
        return self._alive(self._claims / f"{key}.{generation}")

    def live_workers(self) -> list[str]:
        """Owners other than this one that are alive."""
        names = os.listdir(self._workers) if self._workers.is_dir() else []
        return [name for name in names if name != self.owner and self._alive(self._workers / name)]

    def close(self) -> None:
        """Stop showing life and give every claim back at once."""
        self._stop.set()
        if self._me is not None:
            for path in (self._me, *self._touched):
                with contextlib.suppress(OSError):
                    os.utime(path, (0, 0))
            with contextlib.suppress(OSError):
                self._me.unlink()
            self._me = None

    def _live(self) -> Path:
        """This worker's own file, made on first use."""
        if self._me is None:
            self._stop.clear()
            me = self._workers / self.owner
            me.write_text(json.dumps(_identity()))
            self._me, self._touched = me, []
            threading.Thread(target=self._beat, name="alfm-heartbeat", daemon=True).start()
        return self._me

    def _beat(self) -> None:
        while not self._stop.wait(self.lease / 6):
            for path in (self._me, *self._touched):
                with contextlib.suppress(OSError):
                    if path is not None and not self._stop.is_set():
                        os.utime(path)

    def _alive(self, path: Path) -> bool:
        try:
            modified = path.stat().st_mtime
            text = path.read_text()
        except FileNotFoundError:
            return False
        if modified == 0:  # given back
            return False
        try:
            who = json.loads(text)
        except ValueError:
            who = {}  # being written, or cut off: only time can tell
        if who.get("machine") == _machine() and _process_start(int(who["pid"])) != who["start"]:
            return False
        return self._server_time() - modified < self.lease

    def _server_time(self) -> float:
        me = self._live()
        os.utime(me)
        return me.stat().st_mtime


def link(source: Path, name: Path) -> bool:
    """Create `name` with the content of `source`, only if it does not exist; True when we made it."""
    try:
        os.link(source, name)
        return True
    except FileExistsError:
        return name.samefile(source)  # NFS: the reply was lost and the call repeated
    except FileNotFoundError:
        raise
    except OSError:
        try:
            handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(source.read_bytes())
        return True


def _identity() -> dict[str, Any]:
    pid = os.getpid()
    return {"machine": _machine(), "pid": pid, "start": _process_start(pid), "host": socket.gethostname()}


def _machine() -> str:
    """Changes with the host, with a reboot, and with the container (process numbers mean nothing across those)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()}/{uuid.getnode():x}"


def _process_start(pid: int) -> str | None:
    """When the process with this number began, so that a number used again is not mistaken; None: none."""
    try:
        # fields after the command's closing bracket; the state is field 3, the start time field 22
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        pass
    if os.name != "posix":
        return "unknown"  # there, a signal 0 would end the process: only the lease tells
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
