"""The Audio Spectrogram Transformer of Hugging Face's transformers, taught with AudioSet. Not run in CI.

    pip install transformers
    python run_search.py --data GTZAN/genres_original --set backbone=examples/transformers_ast.py:make \
        --set weights=none --set image_size=null --set channels=one --set sample_rate=16000 --set scale=log \
        --set n_fft=512 --set win_ms=25 --set hop_length=160 --set n_mels=128 --set f_min=20 --set mel_scale=kaldi \
        --set pre_emphasis=0.97 --set window=symmetric --set normalise=train --set crop_seconds=10.24 \
        --set freeze_stages=8 --set lr=1e-5

The front end above is close to the one that AST was taught with, and not equal to it: Kaldi's takes the mean out of
each frame and emphasises within it. Its own input is scaled to a deviation of 0.5, ours to 1.

The weights (86M parameters, 350 MB, BSD-3-Clause) are fetched by transformers itself into its own cache, on every
machine that trains.
"""

from torch import Tensor, nn

NAME = "MIT/ast-finetuned-audioset-10-10-0.4593"
FRAMES = 1024  # what its positions are for: crops of 10.24 s at a hop of 10 ms


class Ast(nn.Module):
    """AST's encoder, the mean of its two tokens, and a new linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        from transformers import ASTModel

        self.encoder = ASTModel.from_pretrained(NAME)
        self.head = nn.Linear(self.encoder.config.hidden_size, classes)

    def forward(self, mels: Tensor) -> Tensor:
        """The logits [b, classes] of mels [b, 1, 128, 1024]; shorter and longer ones are padded and cut."""
        frames = nn.functional.pad(mels[:, 0, :, :FRAMES], (0, max(0, FRAMES - mels.shape[3])))
        return self.head(self.encoder(0.5 * frames.transpose(1, 2)).pooler_output)


def make(classes: int, channels: int) -> nn.Module:
    """AST for so many classes; it takes one channel."""
    if channels != 1:
        raise ValueError(f"AST takes one channel, got {channels}: set channels: one")
    return Ast(classes)
