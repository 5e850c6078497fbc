"""Audio encoders of `transformers`: wav2vec 2.0, HuBERT, WavLM, Whisper's encoder, CLAP, AST."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Gt, Le

from alfm.backbones.transformers_model import TransformersEncoder, masked_mean
from alfm.datasets.base import Audio, ItemError
from alfm.errors import UserError
from alfm.options import Name, checked


@checked
class TransformersAudio(TransformersEncoder):
    """One vector per recording.

    A clip is resampled to the model's rate (soxr), cut to `seconds` (`cut`: from its `start` or its `centre`), and a
    shorter one is filled up (`pad`: `zeros`, or `repeat` the clip). `pooling`: `mean` over the frames that the clip
    fills, `cls` (the first frame or token), or `own` (the model's pooled embedding: CLAP, AST). Features: (B, D).
    The other options are those of `TransformersEncoder`. Needs the `audio` extra.
    """

    modality = "audio"
    poolings = ("mean", "cls", "own")

    def __init__(
        self,
        arch: Name,
        pooling: str = "mean",
        seconds: Annotated[float, Gt(0), Le(3600)] = 10.0,
        cut: Literal["start", "centre"] = "centre",
        pad: Literal["zeros", "repeat"] = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(arch, pooling, **options)
        self.seconds, self.cut, self.pad = float(seconds), cut, pad

    def load(self, device: torch.device) -> None:
        """Build feature extractor and model. `UserError`: they cannot be had, or `seconds` is more than they take."""
        model = self._build()
        self.extractor = self._processor("AutoFeatureExtractor")
        self.rate = int(self.extractor.sampling_rate)
        self.length = round(self.seconds * self.rate)
        # Whisper and CLAP take clips of one length, and fill shorter ones up with their own silence
        fixed = getattr(self.extractor, "n_samples", None) or getattr(self.extractor, "nb_max_samples", None)
        self.covered = int(fixed) if fixed else self.length
        if self.length > self.covered:
            raise UserError(f"model.seconds={self.seconds}: {self.arch} takes at most {self.covered / self.rate:g}")
        # patches of a spectrogram lie in two dimensions: no leading share of them is the clip
        self.framewise = model.config.model_type not in ("clap", "audio-spectrogram-transformer")
        if model.config.model_type == "clap":
            tower: torch.nn.Module = _ClapTower(model)
        else:
            tower = model.get_encoder() if model.config.is_encoder_decoder else model
        clip = {"rate": self.rate, "seconds": self.seconds, "cut": self.cut, "pad": self.pad}
        extractor = {key: str(value) for key, value in self.extractor.to_dict().items() if key != "mel_filters"}
        self._finish(tower, device, self._identity(model, {**clip, "extractor": extractor}))
        second = Audio(np.zeros(self.rate, np.float32), self.rate)
        batch = {key: value.to(device) for key, value in self.collate([self.preprocess(second)]).items()}
        with torch.inference_mode():
            self.dim = int(self.encode(batch).shape[1])

    def preprocess(self, item: Audio) -> dict[str, torch.Tensor]:
        """-> the extractor's array, and the share of it that is clip rather than filling."""
        samples = np.asarray(item.samples, dtype=np.float32)
        if len(samples) == 0:
            raise ItemError("the recording holds no samples")
        if item.rate != self.rate:
            samples = _resample(samples, item.rate, self.rate)
        if len(samples) > self.length:
            start = (len(samples) - self.length) // 2 if self.cut == "centre" else 0
            samples = samples[start : start + self.length]
        real = max(1, len(samples))
        if self.pad == "repeat" or len(samples) == 0:
            samples = np.resize(samples, self.length) if len(samples) else np.zeros(self.length, np.float32)
            real = self.length
        output = self.extractor(samples, sampling_rate=self.rate, return_tensors="np")
        main = np.asarray(output[self.extractor.model_input_names[0]][0], dtype=np.float32)
        if main.ndim == 1 and len(main) < self.length:  # after the extractor, whose scale must not see the filling
            main = np.pad(main, (0, self.length - len(main)))
        return {"main": torch.from_numpy(main), "share": torch.tensor(min(1.0, real / self.covered))}

    def collate(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """float32 (B, ...) arrays of one shape, and shares (B,)."""
        if len({tuple(item["main"].shape) for item in items}) > 1:
            raise UserError(f"{self.arch}: clips become arrays of different shapes; set model.pad=repeat")
        return {key: torch.stack([item[key] for item in items]) for key in ("main", "share")}

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """-> (B, D)."""
        main, share = batch["main"], batch["share"]
        inputs = {self.extractor.model_input_names[0]: main}
        if main.ndim == 2 and getattr(self.extractor, "return_attention_mask", False):
            steps = torch.arange(main.shape[1], device=main.device)
            inputs["attention_mask"] = (steps < (share * self.length).round().unsqueeze(1)).long()
        output = self.model(**inputs)
        if self.pooling == "own":
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise UserError(f"{self.arch} has no embedding of its own: set model.pooling=mean")
            return pooled
        frames = output.last_hidden_state
        if frames.ndim == 4:  # CLAP's last layer: (B, D, time, frequency)
            frames = frames.flatten(2).transpose(1, 2)
        if self.pooling == "cls":
            return frames[:, 0]
        if not self.framewise:
            return frames.float().mean(1)
        steps = torch.arange(frames.shape[1], device=frames.device)
        filled = torch.ceil(share * frames.shape[1]).clamp_min(1.0)
        return masked_mean(frames, steps < filled.unsqueeze(1))


class _ClapTower(torch.nn.Module):
    """The audio half of CLAP (Wu et al. 2023, arXiv 2211.06687), projected, without the text half."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.audio_model, self.audio_projection = model.audio_model, model.audio_projection

    def forward(self, input_features: torch.Tensor) -> Any:
        longer = torch.zeros(len(input_features), 1, dtype=torch.bool, device=input_features.device)
        output = self.audio_model(input_features=input_features, is_longer=longer)
        output.pooler_output = self.audio_projection(output.pooler_output)
        return output


def _resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    try:
        import soxr
    except ImportError:
        raise UserError("resampling audio needs soxr: pip install 'alfm[audio]'") from None
    return soxr.resample(samples, rate, wanted).astype(np.float32, copy=False)
