"""Header blocks that come, or go, again and again: HPACK worked out once.

A block means the same as before if nothing has changed that its meaning hangs on: the
dynamic table and two limits for one that comes, the table and its size updates for one
that goes. The tables count their changes here, so that this is a comparison. A block
that itself changes the table means something else the next time, and is never
remembered. What comes of it all is hpack's own, which the tests feed with the same.
"""

from collections.abc import Iterable
from typing import Any

from hpack import Decoder, Encoder, HeaderTuple, HPACKDecodingError
from hpack.table import HeaderTable

ENCODER_TABLE_BYTES = 4_096
"""The most of our response headers that we remember to shorten the next ones. A client
may offer gigabytes, and would decide over our memory; beyond HTTP/2's default nothing
gets shorter, since our headers repeat."""

MAX_SIZE_UPDATES = 32
"""Changes of the dynamic table's size at the beginning of one block. An encoder needs two
(RFC 7541, section 4.2), and some, as hpack's, write all that came in between. Each is one
byte that costs 2 µs, so that blocks full of them would keep a core busy at half a megabyte a
second."""

MAX_BLOCKS = 16
"""Blocks remembered for a connection and direction. A client has a few kinds of calls; one
with more of them than this is answered as fast as before."""

MAX_BLOCK_BYTES = 512
MAX_FIELDS = 64
"""A block of indexes has some ten bytes, and a token that is sent in full fits; few bytes can
say many fields, though. With these limits a client can make us keep 80 KB."""

_State = tuple[int, int, int]


class CountedTable(HeaderTable):
    """hpack's dynamic table, which counts its changes."""

    def __init__(self) -> None:
        self.changes = 0
        super().__init__()

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return super().maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        # The base class has a property, and properties are not inherited by halves.
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]  # hpack types no setter


class StrictDecoder(Decoder):
    """hpack's decoder, which refuses blocks that only keep it busy.

    Overrides the private method by which hpack takes one size update. State: how many
    the block at hand has brought.
    """

    def __init__(self) -> None:
        super().__init__()
        self._size_updates = 0

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        self._size_updates = 0
        return super().decode(data, raw)

    def _update_encoding_context(self, data: bytes | memoryview) -> int:
        self._size_updates += 1
        if self._size_updates > MAX_SIZE_UPDATES:
            raise HPACKDecodingError(f"more than {MAX_SIZE_UPDATES} table size updates in one block")
        return super()._update_encoding_context(data)


class CachingDecoder(StrictDecoder):
    """hpack's decoder, which decodes a block once for as long as that stays right.

    State: `_blocks`, bounded by MAX_BLOCKS, and the `_state` in which they were decoded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_table: CountedTable = CountedTable()
        self._blocks: dict[tuple[bytes, bool], list[HeaderTuple]] = {}
        self._state: _State = self.state

    @property
    def state(self) -> _State:
        """What the meaning of a block hangs on: equal states, equal meanings."""
        return self.header_table.changes, self.max_header_list_size, self.max_allowed_table_size

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        key = bytes(data), raw
        headers = self.cached(*key)
        if headers is not None:
            return list(headers)
        before = self.state
        headers = list(super().decode(data, raw))
        if self.state == before and len(data) <= MAX_BLOCK_BYTES and len(headers) <= MAX_FIELDS:
            if len(self._blocks) >= MAX_BLOCKS:
                self._blocks.clear()
            self._blocks[key] = headers
        return list(headers)

    def cached(self, data: bytes, raw: bool = True) -> list[HeaderTuple] | None:
        """The fields of a block that has come before and means what it did; not to be changed."""
        state = self.state
        if state != self._state:
            self._blocks.clear()
            self._state = state
        return self._blocks.get((data, raw))


class CappedEncoder(Encoder):
    """HPACK for our headers, within our memory whatever table size the client allows."""

    @property
    def header_table_size(self) -> int:
        return super().header_table_size

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        least = min(value, ENCODER_TABLE_BYTES)
        Encoder.header_table_size.fset(self, least)  # type: ignore[attr-defined]  # likewise


class CachingEncoder(CappedEncoder):
    """An encoder that encodes the same fields once for as long as that stays right.

    Fields are str or bytes. State: `_blocks`, bounded by MAX_BLOCKS, and the table's
    count of changes for which they were encoded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_table: CountedTable = CountedTable()
        self._blocks: dict[Any, bytes] = {}
        self._changes = 0

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        table = self.header_table
        if isinstance(headers, dict) or table.resized:  # a size update precedes the block
            return super().encode(headers, huffman)
        fields = tuple(headers)
        if table.changes != self._changes:
            self._blocks.clear()
            self._changes = table.changes
        # Equal fields of which one must not be indexed are encoded differently.
        key = fields, tuple(map(type, fields)), huffman
        block = self._blocks.get(key)
        if block is None:
            block = super().encode(fields, huffman)
            if table.changes == self._changes and len(block) <= MAX_BLOCK_BYTES:
                if len(self._blocks) >= MAX_BLOCKS:
                    self._blocks.clear()
                self._blocks[key] = block
        return block
