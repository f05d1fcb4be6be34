"""What jobs leave for people to read: one document as markdown and as a page of HTML, and its plots."""

from core.reports.document import (
    Block,
    Details,
    Document,
    Figure,
    Heading,
    Listing,
    Sizes,
    StoredAs,
    Table,
    Text,
    write_document,
)

__all__ = [
    "Block",
    "Details",
    "Document",
    "Figure",
    "Heading",
    "Listing",
    "Sizes",
    "StoredAs",
    "Table",
    "Text",
    "write_document",
]
