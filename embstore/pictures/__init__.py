"""Pages to look at what is stored: each is one file, which needs nothing else and asks the network for nothing."""

from typing import TYPE_CHECKING

from embstore.lazy import loader

if TYPE_CHECKING:
    from embstore.pictures.map import DrawnMap, draw_map

__all__ = ["DrawnMap", "draw_map"]

__getattr__ = loader(__name__, {"embstore.pictures.map": ["DrawnMap", "draw_map"]})
