"""Figures, never assertions: ratios inside one run, because machines are shared and noisy."""
