"""Pages to look at what is stored: each is one file, which needs nothing else and asks the network for nothing."""

from typing import TYPE_CHECKING

from embstore.lazy import loader

if TYPE_CHECKING:
    from embstore.pictures.map import DrawnMap, draw_map
    from embstore.pictures.report import DrawnReport, SharedContent, draw_report

__all__ = ["DrawnMap", "DrawnReport", "SharedContent", "draw_map", "draw_report"]

_load = loader(
    __name__,
    {
        "embstore.pictures.map": ["DrawnMap", "draw_map"],
        "embstore.pictures.report": ["DrawnReport", "SharedContent", "draw_report"],
    },
)

if not TYPE_CHECKING:  # or a type checker believes that every name is here
    __getattr__ = _load
