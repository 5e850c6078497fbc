"""What the benchmarks share about the machine: its description, jobs in their own process, and the JSON they write.

A job runs alone, with its own thread count, under a memory limit and a timeout: what happens to it (an error, no
memory, no answer in time) is a result, not the end of the benchmark. The parent imports nothing heavy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alfm.report.cells import TableCell

PACKAGES = (
    "alfm", "torch", "numpy", "scipy", "scikit-learn", "faiss-gpu", "faiss-cpu", "scikit-activeml", "small-text",
    "lightning",
)  # fmt: skip
_MARK = "RESULT "


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(device: str) -> dict[str, Any]:
    """CPU model, cores, memory, load, accelerator, versions, commit and UTC time."""
    cpu = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        memory = int(next(line.split()[1] for line in lines if line.startswith("MemTotal"))) * 1024
    except (OSError, StopIteration):
        memory = None
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    accelerator = None
    if device.startswith("cuda"):
        import torch

        accelerator = torch.cuda.get_device_name(device)
    here = Path(__file__).parent
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(describe, cwd=here, capture_output=True, text=True)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": cores(),
        "memory_bytes": memory,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "device": device,
        "accelerator": accelerator,
        "system": platform.platform(),
        "versions": versions,
        "commit": commit.stdout.strip() or None,
    }


# -- jobs in their own process ---------------------------------------------------------------------------------------


def alone(
    script: str, what: str, arguments: dict[str, Any], *, threads: int, timeout: float, memory_gib: float
) -> dict[str, Any]:
    """Run job `what` of a script in a new process; returns the job's dict with `status`, `threads`, `wall_seconds`.

    status: ok, out of memory, timeout, error (then `message` says what).
    """
    job = {"what": what, "memory_gib": memory_gib, "arguments": arguments}
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(counts, str(threads)) | {"PYTHONWARNINGS": "ignore"}
    if what == "ours":
        environment["OMP_WAIT_POLICY"] = "PASSIVE"  # as `alfm.al_train` has it; peers run as their users run them
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, script, "--job", json.dumps(job)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        return {"status": "timeout", "message": f"no answer within {timeout:g} s", "threads": threads}
    except KeyboardInterrupt:
        _kill_group(process)
        raise
    answers = [line for line in out.splitlines() if line.startswith(_MARK)]
    if answers:
        result = json.loads(answers[-1].removeprefix(_MARK))
    elif process.returncode == -signal.SIGKILL:
        result = {"status": "out of memory", "message": "killed by the system"}
    else:
        result = {"status": "error", "message": (err.strip().splitlines() or ["ended without an answer"])[-1][:300]}
    return result | {"threads": threads, "wall_seconds": round(time.perf_counter() - began, 3)}


def _kill_group(process: subprocess.Popen[str]) -> None:
    # the job's own group (start_new_session), with its loader workers
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def serve(jobs: dict[str, Callable[..., dict[str, Any]]], text: str) -> None:
    """In the new process: run the job described by `text` (JSON) and print its answer as one marked line."""
    job = json.loads(text)
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    device = job["arguments"].get("device", "cpu")
    if not device.startswith("cuda"):
        _limit_memory(job["memory_gib"])  # the CUDA driver reserves address space by the terabyte
    try:
        result = {"status": "ok"} | jobs[job["what"]](**job["arguments"])
    except (MemoryError, RuntimeError) as error:
        memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
        result = {"status": "out of memory" if memory else "error", "message": _sentence(error)}
    except Exception as error:  # a job that fails is a line of the table
        result = {"status": "error", "message": _sentence(error)}
    result["peak_bytes"] = peak_bytes(device)
    print(_MARK + json.dumps(result), flush=True)


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def _limit_memory(gib: float) -> None:
    import resource

    limit = _status("VmSize") + int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _status(field: str) -> int:
    """A size from /proc/self/status in bytes (VmRSS, VmHWM, VmSize); 0 where there is none."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def resident_bytes(device: str) -> int:
    """Bytes held now: by torch's allocator on CUDA, else the resident set."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.memory_allocated(device)
    return _status("VmRSS")


def peak_bytes(device: str) -> int:
    """Most bytes held so far (see `reset_peak`). VmHWM, since ru_maxrss of a new process starts at its parent's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    import resource

    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak(device: str) -> None:
    """Start `peak_bytes` anew from what is held now (Linux and CUDA)."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    import contextlib

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def drain(device: str) -> float:
    """The time once the device has finished what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


# -- what every script does ------------------------------------------------------------------------------------------


def parser(doc: str) -> argparse.ArgumentParser:
    """The options all scripts share."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    made = argparse.ArgumentParser(description=doc.splitlines()[0], formatter_class=formatter)
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    made.add_argument("--threads", type=int, default=cores(), help="CPU threads of this project's own jobs")
    made.add_argument("--json", type=Path, metavar="PATH", help="write all figures and the machine's description here")
    made.add_argument("--work", type=Path, default=None, metavar="DIR", help="where synthetic pools are kept")
    made.add_argument("--timeout", type=float, default=600.0, help="seconds a job may take")
    made.add_argument("--memory", type=float, default=20.0, metavar="GIB", help="memory a job may use (CPU)")
    made.add_argument("--smoke", action="store_true", help="tiny sizes: does the script run at all?")
    made.add_argument("--job", help=argparse.SUPPRESS)
    return made


def comma(text: str) -> list[str]:
    """`a,b` -> ["a", "b"]."""
    return [part for part in text.split(",") if part]


def numbers(text: str) -> list[int]:
    """`1,5` -> [1, 5]."""
    return [int(part) for part in comma(text)]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> None:
    """Print a table; the first column is text, numbers are shortened to three digits."""
    from alfm.report.cells import Table
    from alfm.report.terminal import show

    show(Table(title, columns, short_cells(columns, rows), [note] if note else []))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]], words: int = 1) -> list[str]:
    """A table's lines; its first `words` columns are text, the numbers of the others have three digits."""
    from alfm.report.cells import Table
    from alfm.report.markdown import lines

    return lines(Table("", columns, short_cells(columns, rows), words=words))


def short_cells(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[TableCell]]:
    """Values as cells of a table, floats to three digits; a row that is too short is filled up."""
    from alfm.metrics import Scale
    from alfm.report.cells import TableCell

    class Short(Scale):
        def text(self, value: float) -> str:
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    def cell(value: Any) -> TableCell:
        if isinstance(value, TableCell):
            return value
        if isinstance(value, float):
            return TableCell(value, Short())
        return TableCell(value if value is None else str(value))

    return [[cell(value) for value in (*row, *[None] * (len(columns) - len(row)))] for row in rows]


def gib(size: float | None) -> float | None:
    """Bytes in GiB."""
    return None if size is None else size / 2**30


def save(path: Path | None, result: dict[str, Any]) -> None:
    """Write the figures; called after every part, so that a run that is stopped leaves what it measured."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def strategy_names() -> list[str]:
    """The configs of query strategies that exist now."""
    return sorted(path.stem for path in (Path(__file__).parent.parent / "conf/query_strategy").glob("*.yaml"))


def report_problem(result: dict[str, Any]) -> str:
    """`ok`, or what happened instead, cut to a table's width (the JSON has the whole sentence)."""
    status = result.get("status", "error")
    text = status if status == "ok" else f"{status}: {result.get('message', '')}"
    return text if len(text) <= 90 else text[:87] + "..."
