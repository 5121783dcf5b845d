"""Quarantined events as people read them."""

import sys
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from replicator.core.model import LinkName
from replicator.core.quarantine_document import Document
from replicator.ports import Kept

ID_SHOWN = 10
BYTES_A_LINE = 16
BYTES_SHOWN = 4096


def print_documents(found: Mapping[LinkName, Kept], console: Console) -> None:
    """A table a link, and how many there are in all."""
    for link, kept in found.items():
        if kept.newest:
            console.print(_table(link, kept))
        left = kept.total - len(kept.newest)
        more = f", the newest {len(kept.newest)} of them above" if kept.newest and left else ""
        console.print(f"{link}: {kept.total} in quarantine{more}", highlight=False)
    _tell_of_more(found)


def print_json(found: Mapping[LinkName, Kept]) -> None:
    for kept in found.values():
        for document in kept.newest:
            print(msgspec.json.encode({"id": document.id, **msgspec.to_builtins(document)}).decode())
    _tell_of_more(found)


def _tell_of_more(found: Mapping[LinkName, Kept]) -> None:
    if not all(kept.is_all for kept in found.values()):
        print("there is more than could be looked at: these are some, and no number counts the rest", file=sys.stderr)


def document_text(document: Document) -> str:
    """Everything known, then the bytes: as text where they are text, else in hex."""
    data = document.data
    facts = {
        "id": document.id,
        "link": document.link,
        "reason": document.reason,
        "detail": document.detail,
        "origin": document.origin,
        "partition key": document.partition_key,
        "attempts": str(document.attempts),
        "put away": _time(document.at_ms),
        "bytes": str(len(data)),
    }
    head = "\n".join(f"{name + ':':<15}{_plain(text)}" for name, text in facts.items())
    cut = f"\n(the first {BYTES_SHOWN} bytes; --raw writes all)" if len(data) > BYTES_SHOWN else ""
    return f"{head}\n\n{_readable(data)}{cut}"


def _table(link: LinkName, kept: Kept) -> Table:
    table = Table(title=f"{link}, newest first", title_justify="left")
    for name in ("put away", "id", "reason", "key", "bytes", "detail"):
        table.add_column(name, justify="right" if name == "bytes" else "left", no_wrap=name != "detail")
    for document in kept.newest:
        cells = (document.id[:ID_SHOWN], document.reason, document.partition_key, str(len(document.data)))
        table.add_row(_time(document.at_ms), *[Text(_plain(cell)) for cell in (*cells, document.detail)])
    return table


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor: keys and details are made of other people's bytes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _readable(data: bytes) -> str:
    """As much as is shown; a letter that the end cuts apart is left out."""
    shown = data[:BYTES_SHOWN]
    try:
        text = getincrementaldecoder("utf-8")().decode(shown, len(shown) == len(data))
    except UnicodeDecodeError:
        return "\n".join(_hex_lines(shown))
    return "\n".join(map(_plain, text.splitlines())) if text else "(no bytes)"


def _hex_lines(data: bytes) -> Iterator[str]:
    for start in range(0, len(data), BYTES_A_LINE):
        part = data[start : start + BYTES_A_LINE]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{start:06x}  {part.hex(' '):<{BYTES_A_LINE * 3}} {letters}"
