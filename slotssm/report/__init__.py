"""A self-contained HTML page from plain data: no runs, no files of data sets, no network."""

from slotssm.report.page import (
    Block,
    Cell,
    Chart,
    Charts,
    Code,
    Facts,
    Key,
    Note,
    Page,
    Picture,
    Section,
    Table,
    Videos,
    number,
)
from slotssm.report.rendering import render
from slotssm.report.videos import Region, Track, Video, VideoDocument, embed

__all__ = [
    "Block",
    "Cell",
    "Chart",
    "Charts",
    "Code",
    "Facts",
    "Key",
    "Note",
    "Page",
    "Picture",
    "Region",
    "Section",
    "Table",
    "Track",
    "Video",
    "VideoDocument",
    "Videos",
    "embed",
    "number",
    "render",
]
