from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from trainable.backbones import weights
from trainable.backbones.weights import fetch_weights, load_weights, weights_available, weights_file, weights_url
from trainable.config import TrialConfig
from trainable.errors import InputError
from trainable.training.network import build_network


def config(backbone: str = "mobilenet_v3_small", **values: object) -> TrialConfig:
    return TrialConfig.parse({"backbone": backbone, "image_size": 64, "weights": "imagenet", **values})


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


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


def test_imagenet_weights_come_from_torchs_cache_and_the_head_is_new() -> None:
    state = write_random("mobilenet_v3_small")
    torch.manual_seed(2)
    model = build_network(config(), 5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]) is not name.startswith("classifier.3"), name
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


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
    torch.save(old.state_dict(), weights_file("vit_b_16"))
    load_weights(new, "vit_b_16", 96)
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
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, str], str]]:
    """A web server on this machine that publishes all weights: what it sends, and the hash in their name."""
    served = {"body": b""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(served["body"])))
            self.end_headers()
            self.wfile.write(served["body"])

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()

    def publish(body: bytes, digest: str) -> str:
        served["body"] = body
        url = f"http://127.0.0.1:{httpd.server_port}/model-{digest}.pth"
        monkeypatch.setattr(weights, "weights_url", lambda name: url)
        return url

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    yield publish
    httpd.shutdown()
    httpd.server_close()


def test_what_is_missing_is_downloaded_once_with_progress(
    server: Callable[[bytes, str], str], torch_home: Path
) -> None:  # fmt: skip
    body = bytes(3 << 20)
    server(body, hashlib.sha256(body).hexdigest()[:8])
    seen: list[tuple[str, int, int]] = []
    fetch_weights(["resnet18", "resnet18"], lambda *step: seen.append(step))
    assert weights_available("resnet18")
    assert weights_file("resnet18").read_bytes() == body
    assert seen[-1] == ("ImageNet weights of resnet18", 3 << 20, 3 << 20)
    assert len(list(torch_home.iterdir())) == 1

    server(b"something else", "0" * 8)
    weights_file("resnet18").write_bytes(body)
    fetch_weights(["resnet18"])  # is there: nothing to do


def test_a_download_with_the_wrong_hash_is_refused_and_leaves_nothing(
    server: Callable[[bytes, str], str], torch_home: Path
) -> None:  # fmt: skip
    url = server(b"not the weights", "0123abcd")
    with pytest.raises(InputError, match="does not have the hash 0123abcd") as error:
        fetch_weights(["resnet18"])
    assert url in str(error.value)
    assert list(torch_home.iterdir()) == []


def test_without_a_network_every_missing_file_is_named_and_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(weights, "weights_url", lambda name: f"http://127.0.0.1:{port}/{name}-12345678.pth")
    with pytest.raises(InputError) as error:
        fetch_weights(["resnet18", "resnet34"])
    first, second = error.value.problems
    assert "resnet18-12345678.pth, which is missing (" in first
    assert "refused" in first
    assert "resnet34-12345678.pth, which is missing (not tried after that)" in second


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PATIENCE", 0.2)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/resnet18-12345678.pth"
        monkeypatch.setattr(weights, "weights_url", lambda name: url)
        with pytest.raises(InputError, match="which is missing"):
            fetch_weights(["resnet18"])


def test_every_backbone_has_published_weights() -> None:
    for name in models.list_models(module=models):
        assert weights_url(name).startswith("https://download.pytorch.org/models/")
