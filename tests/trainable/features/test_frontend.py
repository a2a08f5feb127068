from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio

from tests.support.sounds import wave
from trainable.config import TrialConfig
from trainable.data.audio import read_waveform
from trainable.errors import InputError
from trainable.features.frontend import Frontend, pad_to, smoother_rate, window_sizes, wrap


def frontend(sample_rate: int = 8000, **values: Any) -> Frontend:
    return Frontend(TrialConfig(**{"n_fft": 512, "hop_length": 160, "n_mels": 32, **values}), sample_rate)


def sound(seconds: float = 2.0, rate: int = 8000) -> torch.Tensor:
    return torch.from_numpy(wave(seconds, rate)).float()


def torchaudio_mel(waveform: torch.Tensor, rate: int, **values: Any) -> torch.Tensor:
    return torchaudio.transforms.MelSpectrogram(rate, **values)(waveform)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(
    ("rate", "values"),
    [
        (22050, {"n_fft": 2048, "hop_length": 640, "n_mels": 128}),
        (22050, {"n_fft": 2048, "hop_length": 640, "n_mels": 128, "f_min": 50.0, "f_max": 8000.0}),
        (44100, {"n_fft": 4096, "hop_length": 441, "n_mels": 224}),
        (16000, {"n_fft": 400, "hop_length": 160, "n_mels": 64}),
        (8001, {"n_fft": 255, "hop_length": 97, "n_mels": 9}),
    ],
)
def test_power_is_torchaudios_mel_spectrogram_clamped_at_zero(rate: int, values: dict[str, Any]) -> None:
    waveform = sound(3.0, rate)
    ours = Frontend(TrialConfig(**values), rate)(waveform[None])
    theirs = torchaudio_mel(waveform, rate, **values).clamp(min=0)
    assert ours.shape == (1, 1, *theirs.shape)
    torch.testing.assert_close(ours[0, 0], theirs, rtol=1e-5, atol=1e-9)


def test_power_is_torchaudios_on_real_music(shared_data: Any) -> None:
    path = next(iter(sorted((shared_data / "gtzan100" / "genres_original" / "jazz").glob("*.wav"))))
    waveform, rate = read_waveform(path)
    theirs = torchaudio_mel(waveform, rate, n_fft=2048, hop_length=640, n_mels=128)
    torch.testing.assert_close(Frontend(TrialConfig(), rate)(waveform[None])[0, 0], theirs, rtol=1e-5, atol=1e-9)


def test_a_batch_gives_what_its_waveforms_give_alone() -> None:
    batch = torch.stack([sound(), 0.1 * sound().flip(0)])
    for scale in ("power", "log", "db", "pcen"):
        module = frontend(scale=scale)
        alone = torch.cat([module(waveform[None]) for waveform in batch])
        torch.testing.assert_close(module(batch), alone, rtol=1e-5, atol=1e-6)


def test_log_is_the_logarithm_of_power_plus_a_millionth() -> None:
    power = frontend()(sound()[None])
    torch.testing.assert_close(frontend(scale="log")(sound()[None]), torch.log(power + 1e-6))


def test_db_is_torchaudios_with_80_db_below_the_loudest_point() -> None:
    waveform = torch.cat([sound(), torch.zeros(4000)])
    power = frontend()(waveform[None])
    theirs = torchaudio.functional.amplitude_to_DB(power, 10.0, 1e-10, 0.0, top_db=80.0)
    ours = frontend(scale="db")(waveform[None])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    assert ours.min() == ours.max() - 80


def test_pcen_is_the_papers_formula_computed_frame_by_frame() -> None:
    power = frontend()(sound()[None])[0, 0].double().numpy()
    rate = smoother_rate(8000 / 160)
    smooth = power[:, 0].copy()
    expected = np.empty_like(power)
    for frame in range(power.shape[1]):
        smooth = (1 - rate) * smooth + rate * power[:, frame]
        expected[:, frame] = (power[:, frame] / (1e-6 + smooth) ** 0.98 + 2) ** 0.5 - 2**0.5
    ours = frontend(scale="pcen")(sound()[None])[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_pcens_smoother_is_the_papers_at_its_hop_of_10_ms() -> None:
    assert smoother_rate(100) == pytest.approx(0.025, rel=0.01)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_windows_are_mels_through_the_window_its_half_and_its_quarter() -> None:
    ours = frontend(channels="windows")(sound()[None])[0]
    assert len(ours) == 3
    for channel, n_fft in zip(ours, (512, 256, 128), strict=True):
        theirs = torchaudio_mel(sound(), 8000, n_fft=n_fft, hop_length=160, n_mels=32)
        torch.testing.assert_close(channel, theirs, rtol=1e-5, atol=1e-9)


def test_deltas_and_repeat_need_one_channel() -> None:
    assert window_sizes(TrialConfig(channels="deltas"), 22_050) == window_sizes(TrialConfig(), 22_050) == (2048,)


@pytest.mark.parametrize(
    ("rate", "sizes"),
    [(8_000, [256, 512, 1024]), (16_000, [512, 1024, 2048]), (22_050, [512, 1024, 2048]), (44_100, [1024, 2048, 4096])],
)
def test_window_ms_is_the_nearest_power_of_two_at_any_rate(rate: int, sizes: list[int]) -> None:
    assert [window_sizes(TrialConfig(window_ms=ms), rate)[0] for ms in (23.0, 46.0, 93.0)] == sizes
    assert window_sizes(TrialConfig(window_ms=93.0, channels="windows"), rate) == tuple(sizes[::-1])


def test_hop_ms_replaces_hop_length() -> None:
    assert frontend(hop_ms=10.0).hop == 80
    assert frontend(hop_ms=10.0)(sound(1.0)[None]).shape[-1] == 101
    assert frontend().hop == 160


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("zero", [1, 2, 3, 0, 0, 0, 0]), ("repeat", [1, 2, 3, 1, 2, 3, 1]), ("reflect", [1, 2, 3, 2, 1, 2, 3])],
)
def test_short_waveforms_are_padded_at_their_end(padding: str, expected: list[int]) -> None:
    assert pad_to(torch.tensor([[1.0, 2.0, 3.0]]), 7, padding).tolist() == [expected]
    assert pad_to(torch.tensor([[1.0, 2.0, 3.0]]), 2, padding).tolist() == [[1, 2, 3]]


def test_a_single_sample_can_be_mirrored_and_repeated() -> None:
    assert wrap(torch.arange(3), 1, "reflect").tolist() == wrap(torch.arange(3), 1, "repeat").tolist() == [0, 0, 0]


@pytest.mark.parametrize("padding", ["zero", "repeat", "reflect"])
def test_a_clip_shorter_than_the_window_is_the_mel_of_the_padded_clip(padding: str) -> None:
    module = frontend(padding=padding)
    short = sound()[:200]
    torch.testing.assert_close(module(short[None]), module(pad_to(short[None], 512, padding)))
    assert module(short[None]).shape[-1] == 1 + 512 // 160


@pytest.mark.parametrize("scale", ["power", "log", "db", "pcen"])
def test_silence_is_what_the_mel_of_a_silent_stretch_shows(scale: Any) -> None:
    module = frontend(scale=scale)
    mel = module(torch.cat([sound(), torch.zeros(8000)])[None])
    assert mel[0, 0, :, -10:].unique().tolist() == pytest.approx(module.silence(mel).tolist())
    assert mel[0, 0, :, :100].max() > module.silence(mel)[0] + 0.1


def test_f_max_above_half_the_rate_is_refused() -> None:
    with pytest.raises(InputError) as error:
        frontend(f_max=5000.0)
    assert str(error.value) == (
        "f_max: must be at most half the sample rate (4000 Hz at 8000 Hz), got 5000. Lower it or omit it."
    )


def test_f_min_at_or_above_f_max_is_refused() -> None:
    with pytest.raises(InputError) as error:
        frontend(f_min=4000.0)
    assert str(error.value) == "f_min: must be below f_max (4000 Hz), got 4000. Lower it."


def test_the_front_end_keeps_no_weights() -> None:
    assert frontend().state_dict() == {}
    assert math.prod(next(frontend().buffers()).shape) == 512
