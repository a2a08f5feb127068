"""The command `push`: a retrained model to a model hub, with its card."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from trainable.errors import InputError

HUB = "hf:"


def push(path: Path, target: str, private: bool) -> int:
    """Uploads the model of a run, or a model's own folder, to `hf:USER/NAME`; 1 where the hub does not take it.

    Raises:
        InputError: there is no model, the target is none, or huggingface_hub is not installed.
    """
    folder = _model_of(path)
    name = target.removeprefix(HUB)
    if not target.startswith(HUB) or name.count("/") != 1 or not all(name.split("/")):
        raise InputError(f"TARGET: must be hf:USER/NAME, got {target!r}. Name your account and the model there.")
    if find_spec("huggingface_hub") is None:
        raise InputError("push: needs huggingface_hub, which is not installed. pip install 'audio-search[hub]'.")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload the model that retrain handed over")
    except HFValidationError as error:
        raise InputError(
            f"TARGET: must be a name that the hub allows, got {name!r} ({_line(error)}). Change it."
        ) from None
    except (HfHubHTTPError, OSError) as error:  # no token, no right to that name, no network
        print(f"{target}: the hub does not take it: {_line(error)}. Log in with `hf auth login`.", file=sys.stderr)
        return 1
    print(f"{api.endpoint}/{name}")
    return 0


def _model_of(path: Path) -> Path:
    """The model's folder of a run, or the folder itself where it is a model's."""
    for folder in (path / "retrained" / "model", path):
        if (folder / "model.json").exists():
            return folder
    raise InputError(
        f"{path}: must be a run with a retrained model, or a model's folder, got neither. Retrain it first."
    )


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
