"""From a waveform to its mel spectrogram: scale, differences over time, normalisation."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torchaudio
from torch import Tensor, nn

from trainable.config import MEL_FIELDS, TrialConfig
from trainable.errors import InputError

# Raise it whenever the same waveform and configuration come out differently, or are kept differently: cached mels of
# old code are then unused.
FRONTEND_VERSION = 1
DB_FLOOR = 1e-10  # smallest power in dB, as in torchaudio and librosa
DB_RANGE = 80.0  # dB; what lies further below the clip's loudest point is raised to there, as librosa does
# Per-channel energy normalisation. Source: Wang et al. 2017, "Trainable frontend for robust and far-field keyword
# spotting", table 1 and equation 2; the smoother's time constant is its 0.025 per 10 ms frame, as librosa has it.
PCEN_GAIN, PCEN_BIAS, PCEN_EPS, PCEN_SECONDS = 0.98, 2.0, 1e-6, 0.395
_FRAMES_AT_ONCE = 128  # 1 MB of spectrum at n_fft 2048: fits a core's cache
_BANDS = 4  # groups of mel rows; high ones read most bins, low ones few


class Frontend(nn.Module):
    """Mel spectrograms before normalisation: waveform [b, n] to [b, c, m, f].

    b clips of n samples; c is 1, or 3 for `channels: windows` (n_fft, its half and its quarter, with the same hop and
    frames); m mel rows; f = 1 + n // hop frames, centred, the ends mirrored; with pre-emphasis the first sample goes,
    which has no predecessor, so n is one less. Deltas are made later from the single
    channel, where the clip's crop is known. In power scale the result is that of
    torchaudio.transforms.MelSpectrogram(sample_rate, n_fft, hop_length=..., f_min=..., f_max=..., n_mels=...).

    Without f_max the rows go up to half the rate also where the audio was resampled upwards and the top rows are
    empty: set f_max for such a set. Rows narrower than a bin of the transform (low rows of many, or of a short
    window) may hold no bin and stay silent, as in torchaudio.
    """

    def __init__(self, config: TrialConfig, sample_rate: int) -> None:
        """A front end for waveforms at `sample_rate` Hz.

        Raises:
            InputError: f_min and f_max do not fit that rate, or the window does not fit its transform.
        """
        super().__init__()
        check_frequencies(config, sample_rate)
        self.sample_rate = sample_rate
        self.scale = config.scale
        self.log_eps = config.log_eps
        self.pre_emphasis = config.pre_emphasis
        self.padding = config.padding
        self.hop = hop_samples(config, sample_rate)
        self.n_mels = config.n_mels
        self.sizes = window_sizes(config, sample_rate)
        self._bands = []
        for index, size in enumerate(self.sizes):
            filters = mel_filters(config, size, sample_rate)
            self._bands.append(_bands(filters))
            self.register_buffer(f"window{index}", _window(config, size, sample_rate), persistent=False)
            self.register_buffer(f"filters{index}", filters, persistent=False)

    @property
    def shortest(self) -> int:
        """How many samples a waveform must have; shorter ones are padded."""
        return self.sizes[0] + (1 if self.pre_emphasis else 0)

    def forward(self, waveform: Tensor) -> Tensor:
        """The mels [b, c, m, f] of waveforms [b, n] at full scale 1."""
        waveform = self.prepared(waveform)
        power = torch.stack([self.power(waveform, index) for index in range(len(self.sizes))], dim=1)
        return self.compress(power).transpose(-1, -2)  # a view: in memory the rows of a frame lie side by side

    def prepared(self, waveform: Tensor) -> Tensor:
        """Waveforms [b, n] made as long as the window at least, and pre-emphasised: [b, n or n - 1]."""
        waveform = pad_to(waveform, self.shortest, self.padding)
        if not self.pre_emphasis:
            return waveform
        return waveform[..., 1:] - self.pre_emphasis * waveform[..., :-1]

    def power(self, waveform: Tensor, index: int = 0) -> Tensor:
        """The mel power [b, f, m] of waveforms [b, n] through the window of that index; never negative.

        torch.stft and one product with the filters say the same. This stays within a core's cache, leaves out the
        filters' zeros, and squares no root: a third of torchaudio's time.
        """
        window: Tensor = getattr(self, f"window{index}")
        filters: Tensor = getattr(self, f"filters{index}")
        size = window.numel()
        padded = nn.functional.pad(waveform, (size // 2, size // 2), mode="reflect")
        parts = []
        for frames in torch.split(padded.unfold(-1, size, self.hop), _FRAMES_AT_ONCE, dim=1):
            spectrum = torch.fft.rfft(frames * window)
            energy = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            parts.append(torch.cat([energy[..., low:high] @ filters[low:high, rows]
                                    for low, high, rows in self._bands[index]], dim=-1))  # fmt: skip
        return torch.cat(parts, dim=1)

    def compress(self, power: Tensor) -> Tensor:
        """Mel power [b, c, f, m] in the configured scale, same shape."""
        match self.scale:
            case "power":
                return power
            case "log":
                return torch.log(power + self.log_eps)
            case "db":
                level = 10 * torch.log10(power.clamp(min=DB_FLOOR))
                return torch.maximum(level, level.amax(dim=(1, 2, 3), keepdim=True) - DB_RANGE)
            case "pcen":
                return pcen(power, self.sample_rate / self.hop)

    def silence(self, mel: Tensor) -> Tensor:
        """What digital silence within the clips would look like in their mels [b, c, m, f]: [b], in their scale."""
        match self.scale:
            case "log":
                return torch.full_like(mel[:, 0, 0, 0], math.log(self.log_eps))
            case "db":
                return torch.clamp(mel.amax(dim=(1, 2, 3)) - DB_RANGE, min=10 * math.log10(DB_FLOOR))
            case _:
                return torch.zeros_like(mel[:, 0, 0, 0])


def mel_filters(config: TrialConfig, size: int, sample_rate: int) -> Tensor:
    """The weights [bins, m] of a transform's bins in each mel row.

    Kaldi's triangles are straight in mel and leave out the bin at half the rate; torchaudio's are straight in Hz.
    """
    f_max = config.f_max if config.f_max is not None else float(sample_rate // 2)
    if config.mel_scale == "kaldi":
        # The last three are of no account where no vocal tract is warped.
        banks, _ = torchaudio.compliance.kaldi.get_mel_banks(
            config.n_mels, size, float(sample_rate), config.f_min, f_max, 100.0, -500.0, 1.0
        )
        filters: Tensor = nn.functional.pad(banks, (0, 1)).T.contiguous()
        return filters
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        slaney = "slaney" if config.mel_scale == "slaney" else None
        filters = torchaudio.functional.melscale_fbanks(
            size // 2 + 1, config.f_min, f_max, config.n_mels, sample_rate, slaney, config.mel_scale
        )
    return filters


def _window(config: TrialConfig, size: int, sample_rate: int) -> Tensor:
    """The Hann window [size] of a transform: shorter than it by win_ms, in its middle, zeros around it."""
    length = (
        size
        if config.win_ms is None
        else round(config.win_ms * sample_rate * size / _n_fft(config, sample_rate) / 1000)
    )
    window = torch.hann_window(length, periodic=config.window == "periodic")
    before = (size - length) // 2
    return nn.functional.pad(window, (before, size - length - before))


def _bands(filters: Tensor) -> list[tuple[int, int, slice]]:
    """A few groups of mel rows that cover `filters` [bins, m]: the bins from low to high that each group reads."""
    result = []
    for rows in torch.arange(filters.shape[1]).chunk(_BANDS):
        used = filters[:, rows].any(dim=1).nonzero().flatten().tolist() or [0]
        result.append((used[0], used[-1] + 1, slice(int(rows[0]), int(rows[-1]) + 1)))
    return result


def pcen(power: Tensor, frame_rate: float) -> Tensor:
    """Per-channel energy normalisation of mel power [..., f, m] with `frame_rate` frames a second: same shape.

    sqrt(E / (eps + M)^gain + bias) - sqrt(bias), where M is E smoothed over time and starts at the first frame.
    """
    smooth = smoothed(power, smoother_rate(frame_rate))
    return torch.sqrt(power / (PCEN_EPS + smooth).pow(PCEN_GAIN) + PCEN_BIAS) - math.sqrt(PCEN_BIAS)


def smoother_rate(frame_rate: float) -> float:
    """The share of the newest frame in a first-order smoother of PCEN_SECONDS. Source: librosa.pcen."""
    frames = PCEN_SECONDS * frame_rate
    return (math.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)


def smoothed(x: Tensor, rate: float) -> Tensor:
    """M[t] = (1 - rate) M[t-1] + rate x[t] over the frames of x [..., f, m], with M[0] = x[0].

    Doubling: after the step of width k each frame has summed its last 2k inputs, so f frames take log2(f) passes over
    the whole tensor instead of f small ones.
    """
    keep = 1 - rate
    result = torch.cat([x[..., :1, :], x[..., 1:, :] * rate], dim=-2)
    width = 1
    while width < x.shape[-2] and keep**width > 1e-12:
        later = torch.add(result[..., width:, :], result[..., :-width, :], alpha=keep**width)
        result = torch.cat([result[..., :width, :], later], dim=-2)
        width *= 2
    return result


def pad_to(waveform: Tensor, length: int, padding: str) -> Tensor:
    """Waveforms [b, n] made at least `length` samples long at their end: by silence, repetition or mirroring."""
    missing = length - waveform.shape[-1]
    if missing <= 0:
        return waveform
    if padding == "zero":
        return nn.functional.pad(waveform, (0, missing))
    return waveform[..., wrap(torch.arange(length, device=waveform.device), waveform.shape[-1], padding)]


def wrap(position: Tensor, length: int | Tensor, padding: str) -> Tensor:
    """Positions from 0 up, brought into [0, length) by `padding`: repeat starts again, reflect runs back and forth."""
    if padding == "repeat":
        return position % length
    period = torch.as_tensor(2 * length - 2, device=position.device).clamp(min=1)
    turn = position % period
    return torch.minimum(turn, period - turn)


def mel_settings(config: TrialConfig, sample_rate: int) -> dict[str, Any]:
    """The values of all fields that change the mels, as audio at `sample_rate` Hz resolves them.

    Two configurations with equal settings have equal mels: what can be said in two ways is here in one.
    """
    settings = {name: getattr(config, name) for name in MEL_FIELDS}
    for name in ("n_fft", "window_ms", "channels", "hop_length", "hop_ms"):
        del settings[name]
    if config.scale != "log":
        del settings["log_eps"]
    if config.win_ms is not None:
        settings["win_ms"] = round(config.win_ms * sample_rate / 1000)  # samples
    f_max = config.f_max if config.f_max is not None else float(sample_rate // 2)
    sizes, hop = window_sizes(config, sample_rate), hop_samples(config, sample_rate)
    return {**settings, "sample_rate": sample_rate, "f_max": f_max, "sizes": sizes, "hop": hop}


def frame_count(config: TrialConfig, sample_rate: int, samples: int) -> int:
    """How many frames the mel of so many samples has: those of `Frontend`."""
    emphasised = 1 if config.pre_emphasis else 0
    longest = max(samples, shortest_samples(config, sample_rate))
    return 1 + (longest - emphasised) // hop_samples(config, sample_rate)


def shortest_samples(config: TrialConfig, sample_rate: int) -> int:
    """How many samples a waveform must have to fill the longest window: `Frontend.shortest`."""
    return window_sizes(config, sample_rate)[0] + (1 if config.pre_emphasis else 0)


def hop_samples(config: TrialConfig, sample_rate: int) -> int:
    """The hop in samples: hop_ms where given, else hop_length."""
    return config.hop_length if config.hop_ms is None else max(1, round(config.hop_ms * sample_rate / 1000))


def window_sizes(config: TrialConfig, sample_rate: int) -> tuple[int, ...]:
    """The window lengths in samples, one per channel of the mel.

    `window_ms` becomes the power of two with the nearest logarithm: those are fast, and every export has them.
    """
    n_fft = _n_fft(config, sample_rate)
    return (n_fft, n_fft // 2, n_fft // 4) if config.channels == "windows" else (n_fft,)


def _n_fft(config: TrialConfig, sample_rate: int) -> int:
    if config.window_ms is None:
        return config.n_fft
    return max(32, int(2 ** round(math.log2(config.window_ms * sample_rate / 1000))))


def check_frequencies(config: TrialConfig, sample_rate: int) -> None:
    """Checks the mel rows' range against the rate that the audio really has.

    Raises:
        InputError: f_max lies above half the rate, or f_min not below f_max; or the window does not fit the transform.
    """
    nyquist = sample_rate / 2
    transform = 1000 * _n_fft(config, sample_rate) / sample_rate
    if config.win_ms is not None and config.win_ms > transform:
        raise InputError(
            f"win_ms: must be at most the length of the transform ({transform:g} ms at {sample_rate} Hz), got "
            f"{config.win_ms:g}. Lower it, or set it to null."
        )
    if config.f_max is not None and config.f_max > nyquist:
        raise InputError(
            f"f_max: must be at most half the sample rate ({nyquist:g} Hz at {sample_rate} Hz), "
            f"got {config.f_max:g}. Lower it or omit it."
        )
    top = config.f_max if config.f_max is not None else nyquist
    if config.f_min >= top:
        raise InputError(f"f_min: must be below f_max ({top:g} Hz), got {config.f_min:g}. Lower it.")


def with_deltas(rows: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """Mels [T, 1, m] with their first and second differences over time, [T, 3, m].

    `spans` say where each window's frames lie: no difference reaches from one window into the next.
    Source: torchaudio.functional.compute_deltas with its window of five, the ends repeated.
    """
    result = rows.new_empty(len(rows), 3, rows.shape[2])
    result[:, :1] = rows
    edges = _edges(spans, rows.device)
    for channel in (1, 2):
        _delta(result[:, channel - 1], edges, out=result[:, channel])
    return result


def _delta(x: Tensor, edges: tuple[Tensor, ...], out: Tensor) -> None:
    """Differences of x [T, m] over time into `out` [T, m]: of all frames as of one clip, then of the edges."""
    if len(x) > 4:
        torch.sub(x[4:], x[:-4], out=out[2:-2]).mul_(2).add_(x[3:-1]).sub_(x[1:-3]).div_(10)
    at, one_later, one_earlier, two_later, two_earlier = edges
    out[at] = (2 * (x[two_later] - x[two_earlier]) + x[one_later] - x[one_earlier]) / 10


def _edges(spans: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, ...]:
    """The frames that lie within two of an end, and for each the frames 1 later, 1 earlier, 2 later and 2 earlier."""
    near = [
        (at, min(at + 1, end - 1), max(at - 1, start), min(at + 2, end - 1), max(at - 2, start))
        for start, end in spans
        for at in sorted({*range(start, min(start + 2, end)), *range(max(end - 2, start), end)})
    ]
    return torch.tensor(near).to(device, non_blocking=True).unbind(1)


# A deviation below this share of the mean is rounding, not sound: float32 sums are exact to about that.
_SMALLEST = 1e-3


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from and divided out of a mel: one mean and one deviation per channel, not per mel row.

    One pair for all rows keeps the spectrum's tilt, which tells instruments apart; AST and EfficientAT do the same.
    `none` leaves the mel as it is, `clip` takes each clip's own numbers (and holds none), `train` holds those of the
    training clips, every frame counting the same, and `fixed` those of the configuration.
    """

    kind: Literal["none", "clip", "train", "fixed"]
    mean: tuple[float, ...] = ()  # per channel, in the mel's scale; () unless kind is train or fixed
    std: tuple[float, ...] = ()


def fit(config: TrialConfig, mean: Tensor, mean_square: Tensor, frames: Tensor) -> Normalisation:
    """The normalisation of a configuration for clips with these statistics.

    Args:
        config: which kind, and the numbers of a fixed one.
        mean: [n, c] each training clip's mean per channel, float64.
        mean_square: [n, c] each training clip's mean of squares.
        frames: [n] how much each clip counts.
    """
    channels = mean.shape[1]
    if config.normalise == "fixed":
        # A difference over time has no mean.
        middle = [config.fixed_mean] + [0.0 if config.channels == "deltas" else config.fixed_mean] * (channels - 1)
        return Normalisation("fixed", tuple(middle), (config.fixed_deviation,) * channels)
    if config.normalise != "train":
        return Normalisation(config.normalise)
    share = (frames.double() / frames.sum())[:, None]
    total = (mean * share).sum(0)
    std = deviation(total, (mean_square * share).sum(0))
    return Normalisation("train", tuple(total.tolist()), tuple(std.tolist()))


def deviation(mean: Tensor, mean_square: Tensor) -> Tensor:
    """Standard deviations from means and means of squares (float64), never so small that dividing makes noise."""
    variance = (mean_square - mean.square()).clamp(min=0)
    return torch.maximum(variance.sqrt(), _SMALLEST * mean.abs() + 1e-12)
