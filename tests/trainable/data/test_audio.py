from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from trainable.data.audio import read_waveform, resample
from trainable.errors import InputError


def sine(pitch: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def test_a_wav_comes_back_as_it_was_written(tmp_path: Path) -> None:
    samples = np.array([0, 1, -1, 16384, -32768, 32767], dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 22_050)
    wave, rate = read_waveform(tmp_path / "a.wav", None)
    assert rate == 22_050
    assert wave.dtype == torch.float32
    assert torch.equal(wave, torch.from_numpy(samples / 32768).float())


def test_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.stack([sine(440, 8000) * share for share in (1.0, 0.5, 0.0)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, 8000, subtype="FLOAT")
    wave, _ = read_waveform(tmp_path / "a.wav", None)
    np.testing.assert_allclose(wave.numpy(), channels.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(("rate", "new_rate"), [(44_100, 22_050), (8000, 22_050), (96_000, 22_050), (48_000, 44_100)])
def test_resampling_a_sine_gives_the_sine_at_the_new_rate(tmp_path: Path, rate: int, new_rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(1000, rate), rate, subtype="FLOAT")
    wave, said = read_waveform(tmp_path / "a.wav", new_rate)
    assert said == new_rate
    assert len(wave) == new_rate
    inside = slice(new_rate // 50, -new_rate // 50)  # the filter rings at both ends
    np.testing.assert_allclose(wave.numpy()[inside], sine(1000, new_rate)[inside], atol=1e-3)


def test_resampling_music_agrees_with_scipy(shared_data: Path) -> None:
    path = shared_data / "gtzan100" / "genres_original" / "rock" / "rock.00000.wav"
    original, rate = read_waveform(path, None)
    ours = read_waveform(path, 16_000)[0].numpy()
    reference = scipy.signal.resample_poly(original.double().numpy(), 16_000, rate, window=("kaiser", 12.0))
    reference = reference[: len(ours)]
    difference = np.sqrt(np.mean((ours - reference) ** 2) / np.mean(reference**2))
    assert difference < 0.05  # the filters differ in their last tenth of an octave and nowhere else
    low = scipy.signal.butter(8, 6000, fs=16_000, output="sos")
    ours, reference = (scipy.signal.sosfiltfilt(low, wave)[500:-500] for wave in (ours, reference))
    assert np.sqrt(np.mean((ours - reference) ** 2) / np.mean(reference**2)) < 2e-3


def test_what_the_new_rate_cannot_carry_is_filtered_away() -> None:
    wave = resample(torch.from_numpy(sine(11_000, 44_100)).float(), 44_100, 16_000)
    assert wave[500:-500].abs().max() < 0.01


def test_a_pair_of_rates_without_a_common_divisor_takes_no_gigabytes() -> None:
    wave = resample(torch.from_numpy(sine(440, 44_099)).float(), 44_099, 22_050)
    assert abs(len(wave) - 22_050) <= 1
    spectrum = np.abs(np.fft.rfft(wave.numpy() * np.hanning(len(wave))))
    assert np.argmax(spectrum) == 440


def test_a_clip_of_ten_samples_is_resampled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(440, 8000)[:10], 8000)
    assert len(read_waveform(tmp_path / "a.wav", 16_000)[0]) == 20


def test_a_file_that_cannot_be_decoded_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("text")
    with pytest.raises(InputError) as caught:
        read_waveform(tmp_path / "a.wav", None)
    assert str(caught.value) == (
        f"{tmp_path / 'a.wav'}: not readable as audio (format not recognised). Mend the file or leave it out."
    )
    with pytest.raises(InputError, match=r"b\.wav: no such file"):
        read_waveform(tmp_path / "b.wav", None)
