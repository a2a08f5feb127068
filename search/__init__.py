"""The search over training runs: Ray, Optuna, ASHA and SwanLab; no tensors."""

from search.ray_switches import set_switches

set_switches()
