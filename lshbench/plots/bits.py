"""Plot of the bits: how often each is set, and how they correlate."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from lshbench.plots.style import REFERENCE, RUN, SCREEN, TEXT, Medium, caption, dress, figure_for, method_name
from lshbench.run_folder import Run
from lshbench.run_folder.contents import GALLERY_CODES

MOST_BITS = 256
"""Bits in the heat map: more could not be told apart."""
MOST_ITEMS = 20_000
"""Items that correlations are taken over: their error is then below 0.01."""


def bit_balance(run: Run, medium: Medium = SCREEN) -> Figure | None:
    """Draw each bit's mean and the bits' correlations over the gallery; None for a method without bits."""
    means = run.curves().bit_means
    if means is None:
        return None
    packed = run.array(GALLERY_CODES)
    bits = len(means)
    title, name = "Balance and correlation of the bits", method_name(run)
    figure = figure_for(
        run, title, medium=medium, width=medium.double, name=name, right=0.45 * medium.scale, captions=True
    )
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1], gridspec_kw={"wspace": 0.19})

    ordered = np.sort(means)
    positions = np.arange(1, bits + 1)
    if bits <= 128:
        left.bar(positions, means - 0.5, bottom=0.5, width=0.8 if bits > 1 else 0.3, color=RUN)
        x = "bit"
    else:
        left.fill_between(positions, 0.5, ordered, color=RUN, alpha=0.35, linewidth=0)
        left.plot(positions, ordered, color=RUN, linewidth=1.6 * medium.scale)
        x = "bits, from the least to the most often set"
    left.axhline(0.5, color=REFERENCE, linewidth=1.4 * medium.scale, linestyle="--")
    dress(left, x=x, y="share of items with the bit set", grid="y")
    left.set_ylim(0, 1)
    left.set_xlim(0.4 if bits <= 128 else 1, bits + 0.6 if bits <= 128 else bits)
    balance = run.metrics.codes.bit_balance
    caption(left, "dashed: balanced" + ("" if balance is None else f"; mean |2p - 1| = {balance:.3f}"))

    shown = np.unique(np.linspace(0, bits - 1, min(bits, MOST_BITS)).round().astype(int))
    correlation = bit_correlations(packed, bits, shown)
    extent = (0.5, len(shown) + 0.5, len(shown) + 0.5, 0.5)
    image = right.imshow(correlation, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest", extent=extent)
    whole = len(shown) == bits
    dress(
        right,
        x="bit" if whole else f"{len(shown)} of {bits:,} bits, evenly spaced",
        y="bit",
        grid=None,
        apart=0.7 * medium.y_apart,
    )
    for axis, count in ((left.xaxis, bits), (right.xaxis, len(shown)), (right.yaxis, len(shown))):
        axis.set_major_locator(FixedLocator(range(1, count + 1)) if count <= 8 else MaxNLocator(8, integer=True))
    bar = figure.colorbar(image, ax=right, shrink=0.9)
    bar.set_label("correlation", fontsize=medium.label, color=TEXT)
    bar.ax.tick_params(labelsize=medium.tick, colors=TEXT)
    mean = run.metrics.codes.bit_correlation
    caption(right, "no two bits vary" if mean is None else f"mean |r| of two bits = {mean:.3f}")
    return figure


def bit_correlations(packed: np.ndarray, bits: int, shown: np.ndarray) -> np.ndarray:
    """Return correlations of some bits over evenly spaced items, float64; NaN for bits that do not vary.

    Args:
        packed: uint8 ``(n, ceil(bits / 8))``.
        bits: the codes' length.
        shown: int ``(s,)``, the bits.
    """
    rows = np.linspace(0, len(packed) - 1, min(len(packed), MOST_ITEMS)).round().astype(int)
    bytes_of = packed[rows][:, shown // 8]
    values = ((bytes_of >> (7 - shown % 8).astype(np.uint8)) & 1).astype(np.float32)
    values -= values.mean(0)
    covariance = (values.T @ values).astype(np.float64) / len(values)
    spread = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-6, covariance / spread / spread[:, None], np.nan)
