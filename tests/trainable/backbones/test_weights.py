from __future__ import annotations

import ast
import dataclasses
import hashlib
import http.server
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from trainable.backbones import backbone, best_weights, check_backbone, fetch_weights, torchvision, weights_here
from trainable.backbones import weights as weights_module
from trainable.backbones.record import Backbone, Weights
from trainable.backbones.weights import fill
from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.features.frontend import Normalisation
from trainable.inference.model import Facts, save_model
from trainable.training.network import build_network, checked_config


def config(backbone: str = "mobilenet_v3_small", **values: object) -> TrialConfig:
    return TrialConfig.parse({"backbone": backbone, "image_size": 64, "weights": "imagenet", **values})


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def weights_file(name: str, kind: str = "imagenet") -> Path:
    published = backbone(name).of_kind(kind)
    assert published is not None
    return published.file


def write_random(name: str, **options: object) -> dict[str, torch.Tensor]:
    """A randomly initialised file under the name that torchvision looks for."""
    torch.manual_seed(1)
    state = models.get_model(name, weights=None, **options).state_dict()
    torch.save(state, weights_file(name))
    return state


def test_the_file_is_the_one_that_torchvision_looks_for(torch_home: Path) -> None:
    assert weights_file("mobilenet_v2") == torch_home / "mobilenet_v2-b0353104.pth"
    assert weights_file("resnet50") == torch_home / "resnet50-0676ba61.pth"  # V1, although there is a V2
    assert weights_file("vit_h_14") == torch_home / "vit_h_14_swag-80465313.pth"  # has no V1


@pytest.mark.slow
def test_imagenet_weights_come_from_torchs_cache_and_the_head_is_new() -> None:
    state = write_random("mobilenet_v3_small")
    torch.manual_seed(2)
    model = build_network(config(), 5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]) is not name.startswith("classifier.3"), name
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "densenet121"])
def test_old_files_with_auxiliary_heads_or_dotted_names_load(name: str) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    state = write_random(name, **options)
    if name == "densenet121":
        old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for key, value in state.items()}
        torch.save(old, weights_file(name))
    model = build_network(config(name), 5)
    first = "conv1.conv.weight" if name == "googlenet" else "features.denseblock1.denselayer1.conv2.weight"
    assert torch.equal(model.state_dict()[first], state[first])


def test_a_vision_transformer_takes_its_position_embeddings_to_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(size: int) -> VisionTransformer:
        return VisionTransformer(size, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)

    old, new = tiny(64), tiny(96)
    fill(new, backbone("vit_b_16"), old.state_dict(), 96)
    assert new.encoder.pos_embedding.shape == (1, 37, 8)
    assert torch.equal(new.encoder.pos_embedding[:, 0], old.encoder.pos_embedding[:, 0])
    assert torch.equal(new.conv_proj.weight, old.conv_proj.weight)


def test_the_real_weights_beside_the_project_load(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(shared_data / "weights"))
    model = build_network(config("mobilenet_v2"), 10)
    first = model.state_dict()["features.0.0.weight"]
    assert first.shape == (32, 3, 3, 3)
    # ImageNet's first layer has colour and edge detectors far stronger than a random one, whose deviation is 0.08.
    assert float(first.std()) > 0.2


def test_missing_weights_name_the_file_and_three_ways_out(torch_home: Path) -> None:
    with pytest.raises(InputError) as error:
        build_network(config(), 5)
    file = torch_home / "mobilenet_v3_small-047dcff4.pth"
    assert str(error.value) == (
        f"weights: imagenet for mobilenet_v3_small needs {file}, which is missing (it is not in torch's cache). "
        "Put the file there (from https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth), or set "
        "TORCH_HOME to a folder that has it under hub/checkpoints, or use weights: auto or weights: none."
    )


@pytest.mark.slow
def test_auto_takes_what_is_there() -> None:
    torch.manual_seed(0)
    without = build_network(config(weights="auto"), 5).state_dict()["features.0.0.weight"]
    state = write_random("mobilenet_v3_small")
    with_them = build_network(config(weights="auto"), 5).state_dict()["features.0.0.weight"]
    assert not torch.equal(without, state["features.0.0.weight"])
    assert torch.equal(with_them, state["features.0.0.weight"])


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off", None])
def test_a_file_that_is_not_the_models_weights_is_named(content: bytes | None) -> None:
    file = weights_file("mobilenet_v3_small")
    if content is None:
        torch.save(models.shufflenet_v2_x0_5().state_dict(), file)
    else:
        file.write_bytes(content)
    with pytest.raises(InputError, match="must hold torchvision's mobilenet_v3_small, got something else") as error:
        build_network(config(), 5)
    assert str(file) in str(error.value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A web server on this machine that publishes all weights: what it sends, and the hash that they should have."""
    served = {"body": b"", "length": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(served["length"]))
            self.end_headers()
            self.wfile.write(served["body"])

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()

    def publish(body: bytes, digest: str, length: int | None = None) -> str:
        served.update(body=body, length=len(body) if length is None else length)
        url = f"http://127.0.0.1:{httpd.server_port}/model-{digest[:8]}.pth"
        published_at(monkeypatch, lambda name: url, digest)
        return url

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    yield publish
    httpd.shutdown()
    httpd.server_close()


def published_at(monkeypatch: pytest.MonkeyPatch, url: Callable[[str], str], digest: str = "12345678") -> None:
    """Lets torchvision's weights be published elsewhere."""

    def find(name: str) -> Backbone | None:
        record = Backbone(name, name, lambda *_: torch.nn.Linear(1, 1))
        return dataclasses.replace(record, weights=(Weights("imagenet", url(name), "MIT", sha256=digest),))

    monkeypatch.setattr(torchvision, "find", find)


def test_what_is_missing_is_downloaded_once_with_progress(server: Callable[..., str], torch_home: Path) -> None:
    body = bytes(3 << 20)
    server(body, hashlib.sha256(body).hexdigest()[:8])
    seen: list[tuple[str, int, int]] = []
    fetch_weights([("resnet18", "imagenet")] * 2, lambda *step: seen.append(step))
    assert weights_here("resnet18", "imagenet")
    assert weights_file("resnet18").read_bytes() == body
    assert seen[-1] == ("ImageNet weights of resnet18", 3 << 20, 3 << 20)
    assert len(list(torch_home.iterdir())) == 1

    server(b"something else", "0" * 8)
    weights_file("resnet18").write_bytes(body)
    fetch_weights([("resnet18", "imagenet")])  # is there: nothing to do


@pytest.mark.parametrize("digest", ["0123abcd", "0" * 64])
def test_a_download_with_the_wrong_hash_is_refused_and_leaves_nothing(
    server: Callable[..., str], torch_home: Path, digest: str
) -> None:
    url = server(b"not the weights", digest)
    with pytest.raises(InputError, match=f"does not have the hash {digest}") as error:
        fetch_weights([("resnet18", "imagenet")])
    assert url in str(error.value)
    assert list(torch_home.iterdir()) == []


def test_a_download_that_breaks_off_is_refused_where_no_hash_is_known(
    server: Callable[..., str], torch_home: Path
) -> None:
    server(b"half", "", length=8)
    with pytest.raises(InputError, match="ends after 4 of 8 bytes"):
        fetch_weights([("resnet18", "imagenet")])
    assert list(torch_home.iterdir()) == []


def test_a_file_in_the_cache_that_is_not_the_published_one_is_told_where_its_hash_is_known() -> None:
    weights_file("mn04", "audioset").write_bytes(b"another network's")
    with pytest.raises(InputError, match=r"mn04_as_mAP_432.pt must be the published file with the hash 899a8c62"):
        fetch_weights([("mn04", "audioset")])


def test_without_a_network_every_missing_file_is_named_and_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    published_at(monkeypatch, lambda name: f"http://127.0.0.1:{port}/{name}-12345678.pth")
    with pytest.raises(InputError) as error:
        fetch_weights([("resnet18", "imagenet"), ("resnet34", "imagenet")])
    first, second = error.value.problems
    assert "resnet18-12345678.pth, which is missing (" in first
    assert "refused" in first
    assert "resnet34-12345678.pth, which is missing (not tried after that)" in second


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "_PATIENCE", 0.2)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/resnet18-12345678.pth"
        published_at(monkeypatch, lambda name: url)
        with pytest.raises(InputError, match="which is missing"):
            fetch_weights([("resnet18", "imagenet")])


def test_every_backbone_of_torchvision_has_published_weights_with_a_hash_and_a_licence() -> None:
    for name in models.list_models(module=models):
        [weights] = backbone(name).weights
        assert weights.url.startswith("https://download.pytorch.org/models/")
        assert re.fullmatch("[0-9a-f]{8,10}", str(weights.sha256))
        assert weights.licence
        assert (weights.bytes or 0) > 1e6


# --- kinds of weights


def test_auto_takes_what_has_heard_something_before_what_has_seen_something() -> None:
    assert best_weights("mn04") == best_weights("mobilenet_v3_small") == "none"
    write_random("mobilenet_v3_small")
    weights_file("mn04", "audioset").write_bytes(b"")
    assert (best_weights("mn04"), best_weights("mobilenet_v3_small")) == ("audioset", "imagenet")


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("mn04", "imagenet", "weights: imagenet is not published for mn04, which has audioset, got 'imagenet'. Use "
                             "audioset or none or auto."),
        ("resnet18", "audioset", "weights: audioset is not published for resnet18"),
        ("resnet18", "imagnet", "got 'imagnet'. Did you mean imagenet?"),
        ("resnet18", "nowhere/model.pt", "got 'nowhere/model.pt', which is not there"),
    ],
)  # fmt: skip
def test_weights_that_a_backbone_cannot_have_are_one_clear_error(name: str, kind: str, says: str) -> None:
    [problem] = check_backbone(name, None if name == "mn04" else 224, weights=kind)
    assert says in problem


# --- one's own weights


def retrained(folder: Path, classes: int = 7, **values: object) -> Path:
    """The folder of a model of this project."""
    settings = checked_config({"backbone": "mobilenet_v3_small", "image_size": 64, "weights": "none", **values})
    torch.manual_seed(3)
    model = build_network(settings, classes)
    facts = Facts(settings, tuple(map(str, range(classes))), 8000, 1.0, Normalisation("none"))
    save_model(folder, facts, model.state_dict())
    return folder


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_models_folder_gives_all_but_its_head(tmp_path: Path, dropout: float) -> None:
    folder = retrained(tmp_path / "model", dropout=dropout)
    state = load_file(folder / "weights.safetensors")
    model = build_network(config(weights=str(folder)), 5)
    for key, value in model.state_dict().items():
        if not key.startswith("classifier.3"):
            assert torch.equal(value, state[key]), key
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_a_models_folder_brings_the_front_end_that_it_was_taught_with(tmp_path: Path) -> None:
    folder = retrained(tmp_path / "model", scale="log", n_mels=48, hop_ms=7.0, normalise="train")
    asked = {"backbone": "mobilenet_v3_small", "weights": str(folder)}
    settings = checked_config(asked)
    assert (settings.scale, settings.n_mels, settings.hop_ms, settings.image_size) == ("log", 48, 7.0, 64)
    assert checked_config({**asked, "n_mels": 32}).n_mels == 32  # unless it says otherwise


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("inside", [None, "state_dict", "weights"])
def test_a_file_of_a_state_does_too(tmp_path: Path, suffix: str, inside: str | None) -> None:
    torch.manual_seed(3)
    state = models.get_model("mobilenet_v3_small").state_dict()
    file = tmp_path / f"mine{suffix}"
    if suffix == ".pt":
        torch.save({inside: state, "epoch": 3} if inside else state, file)
    else:
        save_file(state, file)
    model = build_network(config(weights=str(file)), 5)
    assert torch.equal(model.state_dict()["features.0.0.weight"], state["features.0.0.weight"])


@pytest.mark.slow
def test_wrong_files_and_folders_are_each_one_clear_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = retrained(tmp_path / "other", backbone="shufflenet_v2_x0_5")
    (tmp_path / "run" / "empty").mkdir(parents=True)
    retrained(tmp_path / "run" / "retrained" / "model")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "another.pt")

    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("code that a stranger's file would run",)

    torch.save({"weights": Code()}, tmp_path / "code.pt")
    for name, says in {
        "other": "a model of shufflenet_v2_x0_5. Search with backbone: shufflenet_v2_x0_5",
        "run": f"Did you mean {tmp_path}/run/retrained/model?",
        "run/empty": "Name a folder that retrain has written",
        "text.pt": "must hold weights of torchvision's mobilenet_v3_small, got something else",
        "another.pt": "must hold weights of torchvision's mobilenet_v3_small, got something else",
        "code.pt": "must hold weights of torchvision's mobilenet_v3_small, got something else",
    }.items():
        with pytest.raises(InputError) as error:
            build_network(config(weights=str(tmp_path / name)), 5)
        assert len(error.value.problems) == 1
        assert says in str(error.value), name
    assert other.is_dir()
    weights_file("mobilenet_v3_small").write_bytes((tmp_path / "code.pt").read_bytes())  # as if it were published so
    with pytest.raises(InputError, match="must hold torchvision's mobilenet_v3_small, got something else"):
        build_network(config(), 5)
    assert "code that a stranger's file would run" not in capfd.readouterr().out


@pytest.mark.slow
def test_nothing_in_the_project_reads_a_pickle_but_by_its_tensors() -> None:
    root = Path(__file__).resolve().parents[3]
    calls = []
    for file in (*root.glob("trainable/**/*.py"), *root.glob("search/**/*.py"), root / "run_search.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                calls.append((str(file.relative_to(root)), given.get("weights_only")))
    assert calls
    assert {only for _, only in calls} == {"True"}, calls
