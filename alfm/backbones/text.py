"""Text encoders of `transformers`, and whole sentence-transformers models."""

from __future__ import annotations

import os
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le

from alfm.backbones.transformers_model import TransformersEncoder, masked_mean, without_bars
from alfm.backbones.weights import seeded
from alfm.datasets.hub import first_line, from_hub
from alfm.errors import UserError
from alfm.options import Name, checked

LONGEST = 512
"""Tokens kept of a text when nothing else is said: what most encoders were trained with."""


@checked
class TransformersText(TransformersEncoder):
    """Token states pooled by `mean`, `cls` (the first token) or `last` (the last real token; for causal models).

    `max_length`: tokens kept of a long text (default: what the model takes, at most 512). An empty text is its special
    tokens, or one padding token where a tokenizer adds none. Features: (B, hidden size). The other options are those
    of `TransformersEncoder`.
    """

    modality = "text"
    poolings: tuple[str, ...] = ("mean", "cls", "last")

    def __init__(
        self,
        arch: Name,
        pooling: str = "mean",
        max_length: Annotated[int, Ge(1), Le(10**6)] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(arch, pooling, **options)
        self.max_length = max_length

    def load(self, device: torch.device) -> None:
        """Build tokenizer and model. `UserError` when they cannot be had."""
        model = self._build()
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self._tokens(self._processor("AutoTokenizer"), getattr(model.config, "max_position_embeddings", None))
        self.dim = int(model.config.hidden_size)
        self._finish(model, device, self._identity(model, {"max_length": self.max_length}))

    def _tokens(self, tokenizer: Any, positions: int | None) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else each forked worker warns of a deadlock
        self.tokenizer = tokenizer
        limits = (self.max_length or LONGEST, tokenizer.model_max_length, positions)
        self.max_length = min(int(limit) for limit in limits if limit and limit > 0)
        choices = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
        self.pad_id = next(choice for choice in choices if choice is not None)

    def preprocess(self, item: str) -> list[int]:
        """Text -> token ids, special tokens included."""
        encoded = self.tokenizer(item, truncation=True, max_length=self.max_length, padding=False)
        return list(encoded["input_ids"]) or [self.pad_id]

    def collate(self, items: list[list[int]]) -> dict[str, torch.Tensor]:
        """int64 (B, T), padded on the right to the longest, and its mask."""
        longest = max(len(item) for item in items)
        ids = torch.full((len(items), longest), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, item in enumerate(items):
            ids[row, : len(item)] = torch.tensor(item)
            mask[row, : len(item)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """-> (B, D)."""
        tokens = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"]
        if self.pooling == "cls":
            return tokens[:, 0]
        if self.pooling == "last":
            last = mask.sum(1) - 1
            return tokens[torch.arange(len(tokens), device=tokens.device), last]
        return masked_mean(tokens, mask)


@checked
class SentenceEncoder(TransformersText):
    """A sentence-transformers model with its own pooling and normalisation (Reimers & Gurevych 2019,
    arXiv 1908.10084).

    `arch`: a repository ("sentence-transformers/all-MiniLM-L6-v2") or a folder; `checkpoint`: a folder, in its place.
    `prompt` is put before every text (default: the model's own default prompt). With `pretrained=False` the
    transformer inside gets random weights from `seed`.
    """

    poolings = ("own",)

    def __init__(
        self,
        arch: Name,
        prompt: str | None = None,
        max_length: Annotated[int, Ge(1), Le(10**6)] | None = None,
        **options: Any,
    ) -> None:
        super(TransformersText, self).__init__(arch, "own", **options)
        self.max_length, self.prompt = max_length, prompt

    def load(self, device: torch.device) -> None:
        """Build the whole model. `UserError` when it cannot be had or does not start from a tokenizer."""
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise UserError("this model needs sentence-transformers: pip install 'alfm[hf]'") from None
        source = self.checkpoint or self.arch
        options: dict[str, Any] = {"device": "cpu", "cache_folder": self.cache_dir, "revision": self.revision}
        if os.path.isdir(source):
            try:
                with without_bars(source):
                    model = SentenceTransformer(source, local_files_only=True, **options)
            except Exception as error:  # damaged folders raise nearly anything
                raise UserError(f"{source} is no sentence-transformers model: {first_line(error)}") from error
        elif self.checkpoint:
            raise UserError(f"model.checkpoint={source}: a folder with a sentence-transformers model is needed")
        else:
            with from_hub(source, self.licence_page):
                model = SentenceTransformer(source, **options)
        model = model.float()
        inner = next((m for m in model.modules() if hasattr(m, "config") and hasattr(m, "base_model_prefix")), None)
        if inner is None or not callable(getattr(model, "tokenizer", None)):
            raise UserError(f"{source} does not start with a transformer and its tokenizer")
        if not self.pretrained:
            with seeded(self.seed):
                fresh = type(inner)(inner.config)
            inner.load_state_dict(fresh.state_dict())
        if self.prompt is None:
            self.prompt = (model.prompts or {}).get(model.default_prompt_name or "", "")
        own_length = model.max_seq_length
        self.max_length = min(self.max_length or own_length or LONGEST, own_length or LONGEST)
        self._tokens(model.tokenizer, None)
        names = [type(module).__name__ for module in model]
        preprocessing = {"max_length": self.max_length, "prompt": self.prompt, "modules": names}
        identity = {**self._identity(inner, preprocessing), "backbone": "sentence-transformers"}
        self._finish(model, device, identity)
        with torch.inference_mode():
            batch = {key: value.to(device) for key, value in self.collate([self.preprocess("a")]).items()}
            self.dim = int(self.encode(batch).shape[1])

    def preprocess(self, item: str) -> list[int]:
        """Text -> token ids, the prompt before it."""
        return super().preprocess((self.prompt or "") + item)

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """-> (B, D)."""
        return self.model(dict(batch))["sentence_embedding"]
