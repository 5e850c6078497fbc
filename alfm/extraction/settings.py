"""The settings of conf/extract.yaml beside its groups: what each may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from alfm.cores import available_cores
from alfm.options import Device, Means, Name, PathName, Seed, checked

PROCESSES = max(16, 8 * available_cores())
"""More would not be faster, and each needs some hundred megabytes."""


@dataclass(frozen=True)
@checked
class CacheChoice:
    """`cache.`: how features are kept, and under which names if not their own."""

    dtype: Literal["auto", "float16", "float32"]
    dataset: Name | None
    model: Name | None
    upload: Annotated[str, Means("a URL such as s3://bucket/features,")] | None


@dataclass(frozen=True)
@checked
class RayChoice:
    """`ray.`: where actors run, and what each takes."""

    address: Annotated[str, Means("auto, HOST:PORT or null")] | None
    num_cpus: Annotated[float, Ge(0), Le(1024)]
    num_gpus: Annotated[float, Ge(0), Le(64)] | Literal["auto"]


@dataclass(frozen=True)
@checked
class Settings:
    """See conf/extract.yaml."""

    splits: Name | Sequence[Name] | None
    known: Annotated[PathName | Sequence[PathName], Means("a cache or a list of caches")] | None
    on_error: Literal["stop", "skip"]
    force: bool
    cache: CacheChoice
    device: Device
    devices: Annotated[int, Ge(1), Le(PROCESSES)]
    engine: Literal["local", "ray"]
    ray: RayChoice
    shard: Annotated[str, Means("i/n with i from 0 to n-1, such as shard=0/4,")] | None
    precision: Literal["auto", "float16", "bfloat16", "float32"]
    decode: Literal["pil", "gpu"]
    compile: bool
    channels_last: bool | Literal["auto"]
    batch_size: Annotated[int, Ge(1), Le(10**6)] | Literal["auto"]
    num_workers: Annotated[int, Ge(0), Le(PROCESSES)] | Literal["auto"]
    part_size: Annotated[int, Ge(1), Le(10**7)] | Literal["auto"]
    threads: Annotated[int, Ge(1), Le(1024)] | Literal["auto"]
    lease_seconds: Annotated[float, Ge(10), Le(10**6)]
    views: Annotated[int, Ge(1), Le(1000)]
    view_splits: Name | Sequence[Name] | None
    seed: Seed
