"""One training run: audio, torch, and neither Ray, Optuna nor SwanLab."""
