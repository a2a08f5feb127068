"""The search over training runs: Ray, Optuna, ASHA and SwanLab; no tensors."""
