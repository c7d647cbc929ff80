"""How learning curves look: each setting's colour, line style and width, and what the legend says of them.

In the other charts a curve runs along a strength, so that colours, line styles and markers show the rest. Here
each setting is a curve, and its strength must be seen, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fmvae.report.settings import BETA, Curve, Setting, label
from fmvae.report.style import COLOURS, Style, legend, spread

MAX_ENTRIES = 12  # strengths, and kinds of runs, that a legend lists; a colour bar has more strengths
MAX_TICKS = 7  # strengths that are written beside a colour bar
BAR = 0.9  # width of a colour bar with its labels, in inches
# dark to light, with a lightness that rises evenly (so grey print and all kinds of colour vision keep the order);
# up to the share at which the contrast on white is still 3:1
RAMPS = (("inferno", 0.05, 0.65), ("viridis", 0.0, 0.58))
ANY = "#000000"  # in the legend, of a line style that curves of several colours have
ALONE = COLOURS[0]  # of curves whose strength has one value, beside others with a ramp: is in none
# "--" is left to runs that are not complete
DASHES: tuple[Any, ...] = ("-", ":", "-.", (0, (4, 1, 1, 1, 1, 1)))
WIDTHS = (1.2, 2.2, 3.4)


class Look(NamedTuple):
    """How a curve is drawn."""

    colour: str
    dash: Any = "-"
    width: float = WIDTHS[0]


def ramp(count: int, which: int = 0) -> list[str]:
    """Return ``count`` colours from dark to light, as ``#rrggbb``; equal counts have equal colours."""
    name, first, last = RAMPS[which % len(RAMPS)]
    return [
        to_hex(matplotlib.colormaps[name](first + (last - first) * i / max(count - 1, 1))) for i in range(count)
    ]


class Looks:
    """The looks of settings, which differ wherever the settings do.

    As long as no strength varies, they are those of the other charts, if these tell all settings apart. If one
    does, colours show it, and line styles (then widths) the kind of runs: model, traits and z.

    Args:
        style: of the other charts.
        curves: with the settings that are drawn, at least one each.
    """

    def __init__(self, style: Style, curves: Sequence[Curve]):
        self.style, self.curves = style, curves
        self.strengths = list(dict.fromkeys(curve.strength for curve in curves))
        self.values = {
            key: sorted({c.value(one) for c in curves if c.strength == key for one in c.settings})
            for key in self.strengths
        }
        varied = [key for key in self.strengths if len(self.values[key]) > 1]
        self.ramps = {key: ramp(len(self.values[key]), i) for i, key in enumerate(varied)}
        self.as_elsewhere = not varied and self._told_apart()
        pairs = [(dash, width) for width in WIDTHS for dash in DASHES]
        if varied:
            kinds = [Look(ANY, dash, width) for dash, width in pairs]
        else:
            kinds = [Look(colour, dash, width) for dash, width in pairs for colour in COLOURS]
        self.repeated = not self.as_elsewhere and len(curves) > len(kinds)
        self.kinds = [
            kind._replace(colour=ALONE) if varied and curve.strength not in varied else kind
            for kind, curve in zip(cycle(kinds), curves, strict=False)
        ]
        if self.as_elsewhere:
            self.kinds = [self._elsewhere(curve) for curve in curves]
        self._looks = {
            id(one): self._look(kind, curve, one)
            for kind, curve in zip(self.kinds, curves, strict=True)
            for one in curve.settings
        }

    def of(self, setting: Setting) -> Look:
        """Return the look of a setting."""
        return self._looks[id(setting)]

    def _look(self, kind: Look, curve: Curve, setting: Setting) -> Look:
        colours = self.ramps.get(curve.strength)
        if not colours:
            return kind
        return kind._replace(colour=colours[self.values[curve.strength].index(curve.value(setting))])

    def _elsewhere(self, curve: Curve) -> Look:
        style = self.style
        return Look(to_hex(style.colour[style.hue(curve)]), style.line[style.shape(curve)])

    def _told_apart(self) -> bool:
        """Return whether the other charts' colours and lines, without their markers, tell and name all curves."""
        looks = {self._elsewhere(curve) for curve in self.curves}
        models = {curve.family for curve in self.curves}
        return len(looks) == sum(len(curve.settings) for curve in self.curves) and not (
            self.style.by_z and len(models) > 1
        )

    @property
    def bars(self) -> list[str]:
        """The strengths that have a colour bar, since a legend of all their values would be too long."""
        return [*self.ramps] if sum(map(len, self.ramps.values())) > MAX_ENTRIES else []

    def handles(self) -> list[Line2D]:
        """Return the legend's entries: the strengths, and the kinds of runs if there are several."""
        if self.as_elsewhere:
            handles = self.style.handles(self.curves)
            for handle in handles:  # markers are of points, of which these curves have none
                handle.set_marker("")
            return [handle for handle in handles if handle.get_linestyle() != "None"]
        handles = [
            Line2D([], [], color=colour, linewidth=2, label=f"{self.word(key)} = {value:g}")
            for key in self.ramps
            if key not in self.bars
            for value, colour in zip(self.values[key], self.ramps[key], strict=True)
        ]
        if len(self.curves) > 1:
            named = list(zip(self.kinds, self.names(), strict=True))
            shown = named if len(named) <= MAX_ENTRIES else named[: MAX_ENTRIES - 1]
            handles += [
                Line2D([], [], color=kind.colour, linestyle=kind.dash, linewidth=kind.width, label=name)
                for kind, name in shown
            ]
            if len(shown) < len(named):
                handles.append(Line2D([], [], linestyle="", label=f"and {len(named) - len(shown)} more"))
        return handles

    def word(self, key: str) -> str:
        """Return a strength as text, such as ``β`` or ``gamma``."""
        return "β" if key == BETA else label(key, self.strengths)

    def names(self) -> list[str]:
        """Return what tells the kinds of runs apart, such as ``conv, z = 10``, one for each curve."""
        models = len({curve.model for curve in self.curves}) > 1
        traits = len({curve.traits for curve in self.curves}) > 1
        dims = len({curve.latent_dim for curve in self.curves}) > 1
        return [
            ", ".join(
                filter(
                    None,
                    [
                        curve.model if models else "",
                        curve.traits if traits else "",
                        f"z = {curve.latent_dim}" if dims else "",
                    ],
                )
            )
            or curve.family
            for curve in self.curves
        ]

    def width(self) -> float:
        """Return the approximate width of legend and colour bars, in inches."""
        texts = [str(handle.get_label()) for handle in self.handles()]
        return (0.7 + 0.08 * max(map(len, texts)) if texts else 0.0) + BAR * len(self.bars)

    def explain(self, figure: Figure) -> None:
        """Draw the legend and the colour bars beside the panels."""
        panels = list(figure.axes)  # without the bars, which become axes, too
        for key in self.bars:
            count = len(self.values[key])
            norm = BoundaryNorm([i - 0.5 for i in range(count + 1)], count)
            drawn = ScalarMappable(norm, ListedColormap(self.ramps[key]))
            bar = figure.colorbar(drawn, ax=panels, pad=0.01, aspect=30)
            ticks = spread(range(count), MAX_TICKS)
            bar.set_ticks(ticks, labels=[f"{self.values[key][i]:g}" for i in ticks])
            bar.ax.minorticks_off()
            bar.set_label(self.word(key))
        if handles := self.handles():
            legend(figure, handles)

    def note(self) -> str:
        """Return what the legend can't tell, as text."""
        told = [f"Colours follow the order of the values of {self.word(key)}." for key in self.bars]
        told += ["Line styles repeat, as there are so many kinds of runs."] if self.repeated else []
        return " ".join(told)
