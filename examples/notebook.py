"""A first search from Python, in cells; notebook.ipynb holds the same ones."""

# %% [markdown]
# # A first search from Python
#
# The same search as on the command line, with tables instead of screens. Put your own folder of class folders, or a
# CSV with the columns `path` and `label`, in the place of `clips`, and raise the numbers: on real data leave `trials`
# and `epochs` out, and a space such as `small-data` says what is worth its time.

# %%
from pathlib import Path

import numpy as np
import soundfile

import search

RATE = 8000  # Hz
rng = np.random.default_rng(0)
moments = np.arange(RATE) / RATE
for label, pitch in {"low": 300, "middle": 600, "high": 1200}.items():
    folder = Path("clips") / label
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * moments)
        soundfile.write(folder / f"{number:02d}.wav", tone + 0.05 * rng.standard_normal(RATE), RATE)

# %%
run = search.search("quick", data="clips", name="first", trials=3, epochs=2, swanlab="off", cpus_per_trial=1)
run.trials[["trial", "name", "status", "best_acc", "best_epoch"]]

# %% [markdown]
# The run is a folder, so another notebook, or another day, can go on with it.

# %%
run = search.load_run("runs/first")
print(run)
run.epochs.tail()

# %% [markdown]
# The best configuration is trained anew on other seeds and tested once, on clips that the search never saw. That is
# the number to believe, with its interval.

# %%
search.retrain(run, top=1, seeds=1, swanlab="off")
run.retrained[["measured_on", "clips", "accuracy", "low_95", "high_95"]]

# %%
labels = search.predict(run, "clips/low/00.wav", "clips/high/00.wav")
print(labels)
