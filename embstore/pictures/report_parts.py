"""The parts of a report, as HTML in which everything that was stored is escaped."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import accumulate
from typing import TYPE_CHECKING

from embstore import __version__
from embstore.pictures.charts import Series, area, periods_of, stacked_bars, summed

if TYPE_CHECKING:
    from embstore.pictures.report import SharedContent
    from embstore.stores.base import ModelInfo, Problem, Stats

_VALUE_BYTES = {"float16": 2, "float32": 4}
_MOST_PROBLEMS = 100
_HASH_CHARS = 12
Counted = dict[date, float]


def header(name: str, drawn_at: str) -> str:
    """Say what the report is of."""
    return f'<header><h1 dir="auto">{_escape(name)}</h1><p>embstore {__version__} · {drawn_at}</p></header>\n'


def tiles(stats: Stats | None, problems: Sequence[Problem]) -> str:
    """Give the numbers that matter most."""
    shown = []
    if stats is not None:
        usages = [model.usage for model in stats.models]
        hits, encoded = sum(usage.n_hits for usage in usages), sum(usage.n_encoded for usage in usages)
        share = f"{_share(hits, hits + encoded)} of what was asked for" if hits + encoded else "nothing was asked for"
        spent = duration(sum(usage.encode_s for usage in usages))
        shown = [
            ("Documents", f"{stats.n_documents:,}", _counted(stats.n_doc_ids, "distinct id")),
            ("Vectors", f"{stats.n_vectors:,}", f"of {_counted(len(stats.models), 'model')}"),
            ("Found", f"{hits:,}", share),
            ("Model time saved", duration(sum(usage.saved_s for usage in usages)), f"{spent} spent"),
            ("Size", size(stats.size_bytes), "one file"),
        ]
    state = (
        ("Problems", f"{len(problems):,}", "see below") if problems else ("Problems", "none", "every row was checked")
    )
    return f'<div class="tiles">{"".join(_tile(*tile) for tile in shown)}{_tile(*state, bad=bool(problems))}</div>\n'


def models_part(stats: Stats) -> str:
    """Give the table of the models."""
    if not stats.models:
        return _section("Models", "<p>None is stored yet.</p>")
    heads = (
        "Model",
        "dim",
        "format",
        "documents",
        "vectors",
        "found",
        "encoded",
        "hit rate",
        "spent",
        "saved",
        "since",
    )
    return _section("Models", _table(heads, [_model_row(model) for model in stats.models], texts=1))


def time_part(stats: Stats) -> str:
    """Draw what was stored, found and encoded over time."""
    stored, hits, encoded = (_by_day(stats, name) for name in ("n_stored", "n_hits", "n_encoded"))
    days = [*stored, *hits, *encoded]
    if not days:
        return _section("Over time", "<p>Nothing has been counted by day yet.</p>")
    periods, period_of = periods_of(days)
    before = max(0.0, stats.n_vectors - sum(stored.values()))  # any that were stored when nothing was counted yet
    grown = [before + n for n in accumulate(summed(stored, periods, period_of))]
    asked = [
        Series("found", "found", summed(hits, periods, period_of)),
        Series("encoded", "encoded", summed(encoded, periods, period_of)),
    ]
    key = '<p class="key"><i class="found"></i> found <i class="encoded"></i> encoded by the model</p>'
    return _section(
        "Over time",
        f"<h3>Vectors stored</h3>{area('Vectors stored', periods, Series('vectors stored', 'grown', grown))}"
        f"<h3>Texts asked for</h3>{key}{stacked_bars('Texts asked for', periods, asked)}"
        '<p class="note">Counted as they are stored, by days of UTC; what was forgotten since is not taken off.</p>',
    )


def duplicates_part(stats: Stats, shared: Sequence[SharedContent]) -> str:
    """List the contents that several documents have."""
    n = stats.n_duplicates
    verb = "shares" if n == 1 else "share"
    told = f"<p>{_counted(n, 'document')} {verb} the vector of another with the same text.</p>"
    rows = [
        (
            f"<code>{_escape(content.content_hash[:_HASH_CHARS])}</code>",
            _escape(content.model_name),
            _ids(content),
            content.n_documents,
        )
        for content in shared
    ]
    return _section(
        "Duplicates", told + (_table(("text", "model", "documents", "times"), rows, texts=3) if rows else "")
    )


def space_part(stats: Stats) -> str:
    """Show what the file's bytes are."""
    parts = [
        (f"{model.model_name}, {model.dtype}", model.n_vectors * model.dim * _VALUE_BYTES.get(model.dtype, 4))
        for model in stats.models
    ]
    rest = stats.size_bytes - sum(n_bytes for _, n_bytes in parts)
    parts.append(("ids, texts, checksums, indexes and free pages", max(rest, 0)))
    rows = [
        f'<li><span dir="auto">{_escape(name)}</span><b>{size(n_bytes)}</b>'
        f'<i style="width:{min(100.0, 100 * n_bytes / max(stats.size_bytes, 1)):.2f}%"></i></li>'
        for name, n_bytes in parts
    ]
    unused = f"<p>{_counted(stats.n_unused, 'vector')} of no document: of texts without an id, or of former ones.</p>"
    return _section("Space", f'<ul class="space">{"".join(rows)}</ul>{unused}')


def problems_part(problems: Sequence[Problem], name: str) -> str:
    """List what is wrong."""
    if not problems:
        return _section("Problems", '<p class="good">None: every row and every structure was checked.</p>')
    rows = [(_escape(one.table), _escape(one.key), _escape(one.what)) for one in problems[:_MOST_PROBLEMS]]
    more = f"<p>and {len(problems) - _MOST_PROBLEMS:,} more</p>" if len(problems) > _MOST_PROBLEMS else ""
    cure = f"<p>What is sound comes into a new file by: <code>embstore repair {_escape(name)} -o NEW</code></p>"
    return _section("Problems", cure + _table(("table", "key", "what"), rows, texts=3) + more)


def duration(seconds: float) -> str:
    """Give a time in the two largest units that matter."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 100 else f"{hours:,} h"


def size(n_bytes: int) -> str:
    """Give a size in MB of 1,000,000 bytes, or GB."""
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.2f} MB"


def _model_row(model: ModelInfo) -> tuple[object, ...]:
    usage = model.usage
    settings = "".join(f"<br><small>{_escape(f'{key}={value}')}</small>" for key, value in model.settings.items())
    return (
        f'<span dir="auto">{_escape(model.model_name)}</span>{settings}',
        model.dim,
        model.dtype,
        model.n_documents,
        model.n_vectors,
        usage.n_hits,
        usage.n_encoded,
        _share(usage.n_hits, usage.n_hits + usage.n_encoded),
        duration(usage.encode_s),
        duration(usage.saved_s),
        model.created_at[:10],
    )


def _by_day(stats: Stats, name: str) -> Counted:
    """Sum a count of all models up by day; a day that is none is passed over."""
    counts: Counted = defaultdict(float)
    for model in stats.models:
        for used in model.usage.days:
            try:
                day = date.fromisoformat(used.day)
            except ValueError:
                continue
            counts[day] += getattr(used, name)
    return counts


def _ids(content: SharedContent) -> str:
    ids = ", ".join(f'<bdi dir="auto">{_escape(doc_id[:80])}</bdi>' for doc_id in content.doc_ids)
    return ids + (", …" if content.n_documents > len(content.doc_ids) else "")


def _tile(name: str, value: str, note: str, *, bad: bool = False) -> str:
    css_class = "tile bad" if bad else "tile"
    return f'<div class="{css_class}"><p>{name}</p><strong>{value}</strong><small>{note}</small></div>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, texts: int) -> str:
    """Make a table of HTML and numbers, whose first columns are texts."""
    head = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f'<table class="texts-{texts}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>'


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _share(part: int, whole: int) -> str:
    """Give a share in per cent, 100% only where it is all."""
    if not whole:
        return "-"
    return f"{min(part / whole, 0.999):.1%}" if part < whole else "100%"


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _escape(text: object) -> str:
    return html.escape(str(text))
