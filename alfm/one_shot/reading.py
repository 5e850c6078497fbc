"""Items as people hold them, made into batches that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from alfm.errors import UserError

LABELS = ("label", "labels")
CHUNK = 16
"""Batches whose items are read together, so that those of equal length find each other."""

Inputs = dict[str, Tensor] | Tensor


@dataclass(frozen=True)
class Batch:
    """What a model takes of some items; places: which of the chunk's, int64 (b,)."""

    places: list[int]
    inputs: Inputs


class Reader:
    """A tokenizer, image processor, feature extractor, processor of several, a function of one item, or None.

    Texts, recordings and tokenised items of different lengths never share a batch, so nothing is padded: the side on
    which a tokenizer would pad makes no difference, nor does a model without a padding token.
    """

    def __init__(self, processor: Any, model: Any, batch_size: int) -> None:
        self.batch_size = batch_size
        self.kind, self.processor = _kind(processor, model)
        self.limit = _longest(self.processor, model) if self.kind == "text" else None

    def batches(self, items: Sequence[Any], first: int) -> Iterator[Batch]:
        """A chunk of items, the first of which is number `first` of all: in batches of equal shapes."""
        prepared = [self._prepared(content_of(item, self.kind, first + i), first + i) for i, item in enumerate(items)]
        alike: dict[Any, list[int]] = {}
        for place, one in enumerate(prepared):
            alike.setdefault(_shape(one), []).append(place)
        for places in alike.values():
            for start in range(0, len(places), self.batch_size):
                some = places[start : start + self.batch_size]
                yield Batch(some, _together([prepared[place] for place in some]))

    def _prepared(self, content: Any, number: int) -> dict[str, Tensor] | Tensor:
        """One item as tensors without a batch dimension."""
        if isinstance(content, Mapping) and not (
            self.kind == "audio" and "array" in content
        ):  # made ready by somebody else
            return {name: torch.as_tensor(value) for name, value in content.items() if name not in LABELS}
        try:
            if self.kind == "text":
                made = self.processor(content, truncation=self.limit is not None, max_length=self.limit)
                return {name: torch.as_tensor(value) for name, value in made.items()}
            if self.kind == "image":
                return _first(self.processor(images=_colour(content), return_tensors="pt"))
            if self.kind == "audio":
                samples, rate = _recording(content)
                wanted = self.processor.sampling_rate
                if rate not in (None, wanted):
                    raise UserError(
                        f"Item {number} is recorded at {rate} Hz and the model listens at {wanted}: resample it first."
                    )
                return _first(self.processor(samples, sampling_rate=wanted, return_tensors="pt"))
            made = content if self.processor is None else self.processor(content)
            if isinstance(made, Mapping):
                return {name: torch.as_tensor(value) for name, value in made.items() if name not in LABELS}
            return torch.as_tensor(made)
        except UserError:
            raise
        except Exception as error:  # anybody's processor
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"Item {number} ({type(content).__name__}) cannot be made ready for the model: {why}"
            ) from error


def content_of(item: Any, kind: str, number: int) -> Any:
    """What the model reads of an item: of a pair (item, label) the first, of a dict the text, image or recording.

    A dict that a model takes as it is (`input_ids`, `pixel_values`, ..) stays one. Raises UserError where a dict has
    none or several.
    """
    if isinstance(item, tuple) and len(item) == 2:
        item = item[0]
    if not isinstance(item, Mapping) or (kind == "audio" and "array" in item):
        return item
    if kind in ("own", "none") or {"input_ids", "pixel_values", "input_values", "input_features"} & set(item):
        return item
    usual = {"text": ("text", "sentence", "content"), "image": ("image", "img"), "audio": ("audio",)}[kind]
    found = [name for name in usual if name in item]
    if not found:
        found = [name for name, value in item.items() if name not in LABELS and _looks_like(value, kind)]
    if len(found) != 1:
        what = " and ".join(map(str, found)) or "none"
        raise UserError(f"Item {number} must have one {kind} to read; it has {what}: give the {kind}s alone.")
    return item[found[0]]


def label_of(item: Any) -> Any:
    """The label that an item brings, or None."""
    if isinstance(item, tuple) and len(item) == 2:
        return item[1]
    if isinstance(item, Mapping):
        return next((item[name] for name in LABELS if name in item), None)
    return None


def as_sequence(items: Any) -> Sequence[Any] | None:
    """Items that can be had by number, in any order and again; None for what can only be gone through once."""
    if isinstance(items, (str, bytes)):
        raise UserError("select() takes many items; this is a single text: put it into a list.")
    if hasattr(items, "iloc"):  # pandas
        return items.to_dict("records") if getattr(items, "ndim", 1) == 2 else items.tolist()
    if isinstance(items, Mapping):
        raise UserError("select() takes a list of items; this is a mapping: name the split, or give its values.")
    if hasattr(items, "__getitem__") and hasattr(items, "__len__"):
        return items
    if not isinstance(items, Iterable):
        raise UserError(f"select() takes a list, a data set or an iterator of items, not {type(items).__name__}.")
    return None


def in_order(items: Any) -> Iterator[Any]:
    """One after the other, also of a data set that only knows numbers."""
    known = as_sequence(items)
    if known is None:
        return iter(items)
    return (known[place] for place in range(len(known)))


def chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _kind(processor: Any, model: Any) -> tuple[str, Any]:
    """text, image, audio, own (a function of one item) or none; and what makes items of this kind ready."""
    parts = {
        "text": getattr(processor, "tokenizer", None),
        "image": getattr(processor, "image_processor", None),
        "audio": getattr(processor, "feature_extractor", None),
    }
    if any(part is not None for part in parts.values()) and not hasattr(processor, "convert_tokens_to_ids"):
        taken = getattr(model, "main_input_name", "input_ids")
        wanted = {"pixel_values": "image", "input_values": "audio", "input_features": "audio"}.get(taken, "text")
        return wanted, parts[wanted]
    if hasattr(processor, "convert_tokens_to_ids"):
        return "text", processor
    names = getattr(processor, "model_input_names", ())
    if "pixel_values" in names:
        return "image", processor
    if hasattr(processor, "sampling_rate"):
        return "audio", processor
    if processor is None:
        return "none", None
    if not callable(processor):
        raise UserError(f"The second of (model, processor) must make items ready; {type(processor).__name__} cannot.")
    own: Callable[[Any], Any] = processor
    return "own", own


def _longest(tokenizer: Any, model: Any) -> int | None:
    """Tokens that a text is cut to: what the tokenizer says, at most what the model has positions for."""
    stated = getattr(tokenizer, "model_max_length", None)
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    known = stated if isinstance(stated, int) and 0 < stated < 10**9 else None
    if not isinstance(positions, int) or positions < 1:
        return known
    # without the tokenizer's word two fewer: RoBERTa and its kin leave their first two positions out
    return min(known, positions) if known is not None else max(1, positions - 2)


def _looks_like(value: Any, kind: str) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "image":
        return hasattr(value, "convert") or (hasattr(value, "ndim") and value.ndim in (2, 3))
    return (isinstance(value, Mapping) and "array" in value) or (hasattr(value, "ndim") and value.ndim == 1)


def _colour(image: Any) -> Any:
    return image.convert("RGB") if hasattr(image, "convert") and image.mode != "RGB" else image


def _recording(value: Any) -> tuple[np.ndarray, int | None]:
    """Samples (T,) and their rate, None where it is not said."""
    if hasattr(value, "samples") and hasattr(value, "rate"):
        return np.asarray(value.samples), int(value.rate)
    if isinstance(value, Mapping) or (
        hasattr(value, "__getitem__") and not hasattr(value, "ndim") and not _plain(value)
    ):
        return np.asarray(value["array"]), int(value["sampling_rate"])
    samples = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value, np.float32)
    return samples, None


def _plain(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _first(made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[0] for name, value in made.items() if isinstance(value, Tensor)}


def _shape(one: dict[str, Tensor] | Tensor) -> Any:
    if isinstance(one, Tensor):
        return tuple(one.shape)
    return tuple((name, tuple(value.shape)) for name, value in sorted(one.items()))


def _together(some: list[Any]) -> Inputs:
    return default_collate(some)
