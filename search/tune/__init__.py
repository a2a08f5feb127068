"""Trials on Ray, proposed by Optuna, cut by ASHA."""
