"""Trained networks at work, and how they are kept: waveforms of any length and rate to calibrated probabilities.

A model is a folder: `weights.safetensors` and `model.json` are all that is needed to label files elsewhere; neither
runs code when it is read. An ensemble is a folder whose `model.json` names the folders of its members.

Legend: n clips, w windows of a clip, k classes, s the image size.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import platform
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trainable.config import TrialConfig
from trainable.data.audio import ABSURD, resample
from trainable.errors import InputError
from trainable.features.frontend import Frontend, Normalisation
from trainable.features.inputs import waveform_windows
from trainable.files import write_atomically
from trainable.inference.metrics import Floats, with_temperature
from trainable.shapes import Record, checked, read_json
from trainable.training.device import find_device
from trainable.training.network import build_network
from trainable.training.trial_folder import TrialFolder

Waveform = Tensor | npt.NDArray[Any]
Sound = tuple[Tensor, int]  # a waveform [n], full scale 1, and its rate in Hz


_LARGEST_BATCH = 256  # windows at once, whatever somebody had room for in the training


class InParts(NamedTuple):
    """A long recording in the parts that it is scored in, read one after the other as they are wanted."""

    number: int
    sounds: Iterator[Sound]


@dataclass(frozen=True)
class Facts:
    """What a network must know beside its weights."""

    config: TrialConfig
    labels: tuple[str, ...]
    sample_rate: int  # Hz, of the front end
    clip_seconds: float  # s: the longest clip that it was trained or chosen on; longer files are cut into such parts
    normalisation: Normalisation


def network_of(config: TrialConfig, labels: Sequence[str], weights: Mapping[str, Tensor]) -> nn.Module:
    """The network of a configuration with trained weights, on the CPU."""
    module = build_network(config.model_copy(update={"weights": "none"}), len(labels))
    try:
        module.load_state_dict(dict(weights))
    except Exception as error:  # names or shapes of another network, or no tensors at all
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"weights: must be those of {config.backbone} for {len(labels)} classes, got others ({why}). Put back a "
            "copy of the folder, or train again."
        ) from None
    return module


class Network:
    """One trained network with its front end."""

    def __init__(self, facts: Facts, weights: Mapping[str, Tensor], device: torch.device) -> None:
        self.facts = facts
        self.device = device
        self.module = network_of(facts.config, facts.labels, weights).to(device).eval()
        self.frontend = Frontend(facts.config, facts.sample_rate).to(device).eval()
        # Networks that see the same windows: seeds of one configuration.
        seen = facts.config.to_json() | {"seed": 0}
        self.view = json.dumps([seen, facts.sample_rate, dataclasses.asdict(facts.normalisation)])

    def windows(self, sound: Sound) -> Tensor:
        """The windows [w, c, h, w] of a waveform at any rate."""
        waveform, rate = sound
        if rate != self.facts.sample_rate:
            waveform = resample(waveform, rate, self.facts.sample_rate)
        facts = self.facts
        return waveform_windows(waveform.to(self.device), self.frontend, facts.config, facts.normalisation)

    def scores(self, windows: Sequence[Tensor]) -> Tensor:
        """The probabilities [n, k] of n clips, each with its windows: softmax, then the mean over a clip's windows."""
        alike: dict[tuple[int, ...], list[int]] = {}  # clips whose windows have one shape go through together
        for place, each in enumerate(windows):
            alike.setdefault(tuple(each.shape[1:]), []).append(place)
        means: dict[int, Tensor] = {}
        for places in alike.values():
            chunks = torch.split(
                torch.cat([windows[place] for place in places]), min(self.facts.config.batch_size, _LARGEST_BATCH)
            )
            scored = torch.cat([self.module(chunk).float().softmax(dim=1) for chunk in chunks])
            parts = torch.split(scored, [len(windows[place]) for place in places])
            means |= {place: part.mean(dim=0) for place, part in zip(places, parts, strict=True)}
        return torch.stack([means[place] for place in range(len(windows))])


@dataclass(frozen=True)
class Label:
    """What a model says of a waveform."""

    label: str
    probability: float  # of `label`, calibrated
    probabilities: dict[str, float]  # of every class, the likeliest first


class _Clip:
    """A clip on its way through the networks, or the reason why it is none."""

    def __init__(self, parts: int, classes: int, reason: str = "") -> None:
        self.reason = reason
        self.missing = parts  # stretches that are not scored yet
        self.parts = parts
        self.total = np.zeros(classes)

    def add(self, probabilities: Floats) -> None:
        self.total += probabilities / self.parts
        self.missing -= 1


class Model:
    """One network or an ensemble of several, with calibrated probabilities.

    A clip's windows are those of the evaluation. A file much longer than any clip of the training set is first cut
    into equal parts of about the longest clip's length, and the parts' probabilities are averaged.
    """

    def __init__(
        self, labels: tuple[str, ...], networks: Sequence[Network], counts: Sequence[int], temperature: float,
        record: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """`counts`: how often each network counts."""
        self.labels = labels
        self.networks = tuple(networks)
        self.temperature = temperature
        self.record = dict(record)
        self.shares = [count / sum(counts) for count in counts]
        self._clip_seconds = max(network.facts.clip_seconds for network in networks)

    @overload
    def predict(self, waveforms: Waveform, rate: int) -> Label: ...

    @overload
    def predict(self, waveforms: Sequence[Waveform], rate: int) -> list[Label]: ...

    def predict(self, waveforms: Waveform | Sequence[Waveform], rate: int) -> Label | list[Label]:
        """What the model says of one waveform [n], or of each of several: a list of them, or an array [b, n].

        Args:
            waveforms: NumPy arrays or tensors; floats at full scale 1, or whole numbers at that of their type.
            rate: in Hz.

        Raises:
            InputError: a waveform is empty, has more than one axis, or holds NaN; or the rate is not above 0.
        """
        one = not isinstance(waveforms, list | tuple) and np.ndim(waveforms) < 2
        if rate <= 0 or rate != int(rate):
            raise InputError(f"rate: must be a whole number of Hz above 0, got {rate!r}. Give the one of the file.")
        sounds = [(_as_waveform(each), int(rate)) for each in ([waveforms] if one else waveforms)]
        labels = []
        for row in self.probabilities(sounds):
            order = np.argsort(-row, kind="stable")
            every = {self.labels[index]: float(row[index]) for index in order}
            labels.append(Label(self.labels[order[0]], float(row[order[0]]), every))
        return labels[0] if one else labels

    def probabilities(self, sounds: Iterable[Sound]) -> Floats:
        """The calibrated probabilities [n, k] of n waveforms with their rates, for the classes of `labels`."""
        rows = [row for row in self.stream(sounds) if not isinstance(row, str)]
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)))

    def stream(self, sounds: Iterable[Sound | InParts | str]) -> Iterator[Floats | str]:
        """As `probabilities`, one row [k] after the other; a text in the place of a sound comes out at its place."""
        waiting: deque[_Clip] = deque()
        batch: list[tuple[_Clip, Sound]] = []
        for sound in sounds:
            if isinstance(sound, str):
                waiting.append(_Clip(0, len(self.labels), sound))
            else:
                parts = sound if isinstance(sound, InParts) else self._parts(sound)
                clip = _Clip(parts.number, len(self.labels))
                waiting.append(clip)
                try:
                    for part in parts.sounds:
                        batch.append((clip, part))
                        if len(batch) >= self._at_once:
                            self._score(batch)
                            batch = []
                except InputError as error:  # a file that has changed since it was looked at
                    clip.reason, clip.missing = str(error), 0
            while waiting and waiting[0].missing <= 0:
                yield self._result(waiting.popleft())
        if batch:
            self._score(batch)
        yield from map(self._result, waiting)

    def parts_of(self, samples: int, rate: int) -> list[tuple[int, int]]:
        """The parts that a clip of so many samples at `rate` Hz is scored in, as first samples and ends."""
        count = max(1, round(samples / rate / self._clip_seconds))
        size, more = divmod(samples, count)
        starts = [number * size + min(number, more) for number in range(count + 1)]
        return list(itertools.pairwise(starts))

    @property
    def _at_once(self) -> int:
        """How many stretches are scored together: about as many windows as a batch of training had."""
        configs = [network.facts.config for network in self.networks]
        return min(max(1, min(c.batch_size, _LARGEST_BATCH) // c.scored_crops) for c in configs)

    def _parts(self, sound: Sound) -> InParts:
        waveform, rate = sound
        spans = self.parts_of(waveform.numel(), rate)
        return InParts(len(spans), ((waveform[start:stop], rate) for start, stop in spans))

    @torch.inference_mode()
    def _score(self, batch: Sequence[tuple[_Clip, Sound]]) -> None:
        seen: dict[str, list[Tensor]] = {}
        mean = np.zeros((len(batch), len(self.labels)))
        for network, share in zip(self.networks, self.shares, strict=True):
            if network.view not in seen:
                seen = {network.view: [network.windows(sound) for _, sound in batch]}  # only one view is kept
            mean += share * network.scores(seen[network.view]).double().cpu().numpy()
        for (clip, _), probabilities in zip(batch, mean, strict=True):
            clip.add(probabilities)

    def _result(self, clip: _Clip) -> Floats | str:
        return clip.reason or with_temperature(clip.total[None], self.temperature)[0]


def _as_waveform(given: Any) -> Tensor:
    """A waveform [n] in float32, full scale 1."""
    try:
        wave = torch.as_tensor(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"waveform: must be an array of numbers, got {type(given).__name__} ({error}).") from None
    if wave.ndim != 1 or not len(wave):
        raise InputError(
            f"waveform: must be samples [n] of one channel, got the shape {list(wave.shape)}. Average its channels, or "
            "give clips of different lengths as a list."
        )
    if not wave.is_floating_point():
        return wave.float() / (torch.iinfo(wave.dtype).max + 1)
    if not wave.isfinite().all():
        raise InputError("waveform: must hold finite numbers, got NaN or infinity. Leave these samples out.")
    if wave.abs().max() > ABSURD:
        raise InputError(f"waveform: must be at full scale 1, got a peak of {wave.abs().max():.1e}. Scale it.")
    return wave.float()


FORMAT = 1  # of model.json
ABOUT, WEIGHTS = "model.json", "weights.safetensors"
_PACKAGES = ("torch", "torchvision", "torchaudio", "numpy", "soundfile")


def save_model(
    folder: Path, facts: Facts, weights: Mapping[str, Tensor], temperature: float = 1.0,
    record: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes a model's folder. `record` says how it was trained and what it achieved, as plain values."""
    folder.mkdir(parents=True, exist_ok=True)
    # Clones: tied or sliced tensors share memory, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_atomically(folder / WEIGHTS, save(tensors))  # safetensors' own files are for their owner alone
    _write_about(folder, facts.labels, temperature, record, {
        "config": facts.config.to_json(),
        "sample_rate": facts.sample_rate,
        "clip_seconds": facts.clip_seconds,
        "normalisation": dataclasses.asdict(facts.normalisation),
    })  # fmt: skip


def best_state(trial: TrialFolder) -> dict[str, Any]:
    """The best checkpoint of a trial.

    Raises:
        InputError: it is gone.
    """
    state = trial.load("best")
    if state is None:
        raise InputError(f"{trial.checkpoint('best')}: must be there, got no such file. Put it back, or train again.")
    return state


def facts_of(state: Mapping[str, Any], source: str) -> Facts:
    """What a checkpoint says of its network beside the weights."""
    checked(dict(state), _State, source, _TRAIN_AGAIN)
    return Facts(
        TrialConfig.parse(state["config"], source=source), tuple(state["labels"]), state["sample_rate"],
        state["clip_seconds"], _normalisation(state["normalisation"]),
    )  # fmt: skip


_TRAIN_AGAIN = "Put back a copy of it, or train again."


def save_trial(
    trial: TrialFolder, folder: Path, temperature: float = 1.0, record: Mapping[str, Any] | None = None
) -> None:
    """Writes the model's folder of a trial's best checkpoint."""
    state = best_state(trial)
    facts = facts_of(state, str(trial.path))
    save_model(folder, facts, state["weights"], temperature, {"epoch": state["epoch"], **(record or {})})


def save_ensemble(
    folder: Path, members: Sequence[str], labels: Sequence[str], temperature: float = 1.0,
    record: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes an ensemble's `model.json`; `members` are model folders inside `folder`, named as often as they count."""
    _write_about(folder, labels, temperature, record, {"members": list(members)})


def _write_about(
    folder: Path, labels: Sequence[str], temperature: float, record: Mapping[str, Any] | None, more: dict[str, Any]
) -> None:
    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    about = {
        "format": FORMAT, "labels": list(labels), "temperature": temperature, **more, "record": dict(record or {}),
        "versions": versions,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / ABOUT, json.dumps(about, indent=2) + "\n")


def load_model(path: str | Path, device: str = "auto") -> Model:
    """The model in a folder that `retrain` has written, ready to label clips on `device`.

    Raises:
        InputError: it is no model folder, or one that this version cannot read.
    """
    folder = Path(path)
    about = _read_about(folder)
    place = find_device(device)
    counts: dict[str, int] = {}
    for member in about.get("members") or ["."]:
        counts[member] = counts.get(member, 0) + 1
    networks = [_network(_member(folder, member), place) for member in counts]
    labels = tuple(about["labels"])
    if any(network.facts.labels != labels for network in networks):
        raise InputError(f"{folder / ABOUT}: labels: must be those of its members, got others. {_COPY_IT}")
    model = Model(labels, networks, list(counts.values()), about["temperature"], about["record"])
    _try_out(model, folder)
    return model


def _member(folder: Path, name: str) -> Path:
    """The folder of a member, which lies inside the ensemble's: a stranger's model reads nothing else."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{folder / ABOUT}: members: must be folders inside it, got {name!r}. {_COPY_IT}")
    return place


def _try_out(model: Model, folder: Path) -> None:
    """Lets a model label a moment of noise: what does not fit together in its files shows here and not in mid-work."""
    facts = model.networks[0].facts
    noise = torch.rand(int(min(facts.clip_seconds, 1.0) * facts.sample_rate) + 1, generator=torch.Generator()) - 0.5
    try:
        scored = model.probabilities([(noise, facts.sample_rate)])
    except InputError:
        raise
    except Exception as error:  # whatever torch says of shapes that do not go together
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: must be able to label noise, got {type(error).__name__}: {why}. {_COPY_IT}"
        ) from None
    if not np.isfinite(scored).all():
        raise InputError(f"{folder / WEIGHTS}: must make probabilities of noise, got {scored[0, 0]}. {_COPY_IT}")


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.exists():
        inside = sorted(found.parent for found in folder.glob(f"**/{ABOUT}")) if folder.is_dir() else []
        hint = (
            f"Did you mean {inside[0]}?" if inside else "Name a folder that `retrain` has written: RUN/retrained/model."
        )
        raise InputError(f"{folder}: must be a model's folder with {ABOUT}, got none. {hint}")
    about: dict[str, Any] = read_json(path, _About, _COPY_IT)
    if about["format"] != FORMAT:
        raise InputError(f"{path}: format: must be {FORMAT}, got {about['format']!r}. Use the version that wrote it.")
    return about


_COPY_IT = "Copy the whole folder again, or retrain."
_Labels = Annotated[list[Annotated[str, Field(max_length=10_000)]], Field(min_length=1, max_length=10_000)]
_Seconds = Annotated[float, Field(ge=0.01, le=10 * 86_400)]  # shorter parts of a long recording would never end
_Rate = Annotated[int, Field(ge=1000, le=384_000)]


class _Normalised(Record):
    kind: Literal["none", "clip", "train", "fixed"]
    mean: Annotated[list[float], Field(max_length=16)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(max_length=16)]


class _About(Record):
    """model.json, of one network or of an ensemble."""

    format: int
    labels: _Labels
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    record: dict[str, Any]
    members: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=1000)] | None = None


class _AboutNetwork(_About):
    """model.json of one network."""

    config: dict[str, Any]
    sample_rate: _Rate
    clip_seconds: _Seconds
    normalisation: _Normalised


class _State(Record):
    """What a trial's best.pt says of its network."""

    config: dict[str, Any]
    labels: list[str]
    sample_rate: _Rate
    clip_seconds: float
    normalisation: dict[str, Any]
    epoch: int
    weights: dict[str, Any]


# What a part of a recording may take at most: more than any sensible front end makes of the longest clips.
_MOST_NUMBERS = 2**30  # of a mel, 4 bytes each


def _network(folder: Path, device: torch.device) -> Network:
    about = checked(_read_about(folder), _AboutNetwork, str(folder / ABOUT), _COPY_IT)
    path = folder / WEIGHTS
    if not path.exists():
        raise InputError(f"{folder}: must hold {WEIGHTS}, got none. Copy the whole folder.")
    facts = Facts(
        TrialConfig.parse(about["config"], source=str(folder / ABOUT)), tuple(about["labels"]), about["sample_rate"],
        about["clip_seconds"],
        _normalisation(about["normalisation"]),
    )  # fmt: skip
    _check_harmless(facts, folder)
    try:
        weights = load_file(path)
    except Exception as error:  # whatever safetensors says of a file that is something else
        why = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: must be whole, got something else ({why}). {_COPY_IT}") from None
    try:
        return Network(facts, weights, device)
    except InputError:
        raise
    except Exception as error:  # shapes that do not fit, settings that no front end can have
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: {ABOUT} and {WEIGHTS} must go together, got {why}. {_COPY_IT}") from None


def _check_harmless(facts: Facts, folder: Path) -> None:
    """Refuses a model that would take the machine's memory, or run a program that lies beside it."""
    config = facts.config
    hop = config.hop_length if config.hop_ms is None else max(1, round(config.hop_ms * facts.sample_rate / 1000))
    numbers = facts.clip_seconds * facts.sample_rate * max(1.0, 3 * config.n_mels / hop)
    if numbers > _MOST_NUMBERS:
        raise InputError(
            f"{folder / ABOUT}: clip_seconds: must leave a mel of at most {_MOST_NUMBERS:.1e} numbers, got "
            f"{facts.clip_seconds:g} s, which make {numbers:.1e}. Use a larger hop, or train on crops."
        )
    place, colon, _ = config.backbone.rpartition(":")
    if colon and place.endswith(".py"):
        program = Path(place).expanduser()
        inside = (program if program.is_absolute() else folder / program).resolve().is_relative_to(folder.resolve())
        if inside or not program.is_absolute():
            raise InputError(
                f"{folder / ABOUT}: config.backbone: must be a program that you have put in its place yourself, got "
                f"{config.backbone!r}, which would come with the model. Read it, and name it by its whole path."
            )


def _normalisation(values: Mapping[str, Any]) -> Normalisation:
    return Normalisation(values["kind"], tuple(values["mean"]), tuple(values["std"]))
