"""Plots as PNG files. Each draws what it is given and knows no job."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

_BINS = 40
_DPI = 110


def plot_curves(
    loss: Sequence[tuple[int, float]], metrics: Mapping[str, Sequence[tuple[int, float]]], path: Path
) -> None:
    """Loss on the left, every metric over the steps on the right; both as (step, value)."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if loss:
        left.plot(*zip(*loss, strict=True))
    left.set(title="training loss", xlabel="step")
    for name, points in metrics.items():
        right.plot(*zip(*points, strict=True), marker="o", label=name)
    right.set(title="evaluations", xlabel="step")
    if metrics:
        right.legend(fontsize="small")
    figure.savefig(path, dpi=_DPI)


def plot_histograms(values: Mapping[str, np.ndarray], label: str, path: Path) -> None:
    """Several histograms on one scale, each of area 1."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    every = np.concatenate([*values.values(), np.empty(0)])
    every = every[np.isfinite(every)]
    bins: Any = np.linspace(every.min() - 1e-3, every.max() + 1e-3, _BINS) if len(every) else _BINS
    for name, some in values.items():
        if len(some):
            axes.hist(some, bins=bins, alpha=0.6, density=True, label=f"{len(some):,} {name}")
    axes.set(xlabel=label, ylabel="density")
    if len(every):
        axes.legend()
    figure.savefig(path, dpi=_DPI)


COLOURS = {"good": "#1a7f37", "bad": "#c62828", "even": "#777777"}


def plot_intervals(rows: Sequence[tuple[str, float, float, float, str]], label: str, path: Path) -> None:
    """(name, difference, low, high, tone) below each other, against a line at no difference."""
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, difference, low, high, tone) in enumerate(rows):
        colour = COLOURS[tone]
        axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.6)
        axes.plot([difference], [place], "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set(xlabel=label)
    figure.savefig(path, dpi=_DPI)


def plot_gains(gains: Mapping[str, np.ndarray], label: str, path: Path) -> None:
    """Every query's difference from the largest gain to the largest loss, a line for each model."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, values in gains.items():
        axes.plot(np.linspace(0, 100, len(values)), np.sort(values)[::-1], drawstyle="steps-mid", label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="queries, %", ylabel=label)
    if gains:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=_DPI)


def plot_by_depth(curves: Mapping[str, Sequence[tuple[int, float]]], label: str, path: Path) -> None:
    """(depth, value) lines over a logarithmic depth."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.set(xlabel="documents looked at", ylabel=label)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=_DPI)
