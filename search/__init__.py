"""The search over training runs: Ray, Optuna, ASHA and SwanLab; no tensors."""

import sys

from search.ray_switches import set_switches

if "ray" not in sys.modules:  # else it has made up its mind, and half a change is worse than none
    set_switches()
