"""Drawings of counts over time, as SVG that takes its colours from the page."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

_WIDTH, _HEIGHT = 720, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 24
_LABEL_WIDTH = 104
_TICKS = 4


class Series(NamedTuple):
    """Values of one kind, one a period: what they are, the class that colours them, and they themselves."""

    name: str
    css_class: str
    values: Sequence[float]


def periods_of(days: Sequence[date]) -> tuple[list[date], Callable[[date], date]]:
    """Divide the time between the first and the last of days so that there is room to draw each part.

    Returns
    -------
    periods : list of date
        The first days of all days, weeks, months or years between, those without anything too.
    period_of : callable
        Gives the period that a day is in.
    """
    first, last = min(days), max(days)
    n_days = (last - first).days
    period_of: Callable[[date], date] = _day
    if n_days > 62:
        period_of = _week if n_days <= 400 else _month if n_days <= 4000 else _year
    return list(dict.fromkeys(map(period_of, _days(first, last)))), period_of


def summed(counts: Mapping[date, float], periods: Sequence[date], period_of: Callable[[date], date]) -> list[float]:
    """Sum counts of days up by period."""
    sums = dict.fromkeys(periods, 0.0)
    for day, count in counts.items():
        sums[period_of(day)] += count
    return list(sums.values())


def stacked_bars(title: str, periods: Sequence[date], series: Sequence[Series]) -> str:
    """Draw a bar a period, of the values of all series on top of each other."""
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)]
    top, frame = _frame(max(totals, default=0), periods)
    slot = (_WIDTH - _LEFT - _RIGHT) / len(periods)
    width = max(min(slot * 0.76, 44), 0.6)
    parts = []
    for i, period in enumerate(periods):
        y = float(_HEIGHT - _BOTTOM)
        told = ", ".join(f"{one.values[i]:,.0f} {one.name}" for one in series)
        parts.append(f"<g><title>{period}: {html.escape(told)}</title>")
        for one in series:
            height = _scale(one.values[i], top)
            y -= height
            if height:
                x = _LEFT + slot * (i + 0.5) - width / 2
                parts.append(
                    f'<rect class="{one.css_class}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
                )
        parts.append("</g>")
    return _svg(title, frame + "".join(parts))


def area(title: str, periods: Sequence[date], series: Series) -> str:
    """Draw what has come together by the end of each period."""
    top, frame = _frame(max(series.values, default=0), periods)
    slot = (_WIDTH - _LEFT - _RIGHT) / len(periods)
    base = _HEIGHT - _BOTTOM
    at = [(_LEFT + slot * (i + 0.5), base - _scale(value, top)) for i, value in enumerate(series.values)]
    at = [(float(_LEFT), at[0][1]), *at, (float(_WIDTH - _RIGHT), at[-1][1])]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    last = f"{series.values[-1]:,.0f} {series.name}"
    return _svg(
        title,
        f'{frame}<g class="{series.css_class}"><title>{html.escape(last)}</title>'
        f'<polygon points="{_LEFT},{base} {line} {_WIDTH - _RIGHT},{base}"/><polyline points="{line}"/></g>',
    )


def _frame(most: float, periods: Sequence[date]) -> tuple[float, str]:
    """Draw the axes: give the value at the top, and lines with their values and dates."""
    step = _step(most)
    n_steps = max(1, math.ceil(most / step))
    parts = []
    for i in range(n_steps + 1):
        y = _HEIGHT - _BOTTOM - _scale(i * step, n_steps * step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(i * step)}</text>')
    slot = (_WIDTH - _LEFT - _RIGHT) / len(periods)
    every = max(1, math.ceil(_LABEL_WIDTH / slot))
    for i in range(0, len(periods), every):
        x = min(max(_LEFT + slot * (i + 0.5), _LEFT + 30), _WIDTH - _RIGHT - 34)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{periods[i]}</text>')
    return n_steps * step, "".join(parts)


def _step(most: float) -> float:
    """Give the smallest of 1, 2, 5, 10, 20, 50, ... that divides a value into few enough steps."""
    step = 1.0
    while most / step > _TICKS:
        step *= 2.5 if f"{step:.0f}".startswith("2") else 2
    return step


def _scale(value: float, top: float) -> float:
    return value / top * (_HEIGHT - _TOP - _BOTTOM)


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _svg(title: str, content: str) -> str:
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg class="chart" {box} role="img" aria-label="{html.escape(title)}">{content}</svg>'


def _days(first: date, last: date) -> Iterator[date]:
    for i in range((last - first).days + 1):
        yield first + timedelta(days=i)


def _day(day: date) -> date:
    return day


def _week(day: date) -> date:
    return day - timedelta(days=min(day.weekday(), day.toordinal() - 1))  # there is no Monday before year 1


def _month(day: date) -> date:
    return day.replace(day=1)


def _year(day: date) -> date:
    return day.replace(month=1, day=1)
