"""Header blocks remembered: the same as hpack's own, whatever comes in whatever order."""

from collections.abc import Callable
from typing import Any

import pytest
from hpack import Decoder, Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.http2.hpack_cache import (
    ENCODER_TABLE_BYTES,
    MAX_BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_FIELDS,
    CachingDecoder,
    CachingEncoder,
    CappedEncoder,
)

NAMES = [b":status", b":path", b"te", b"grpc-status", b"x-long-name", b"x"]
VALUES = [b"", b"0", b"200", b"/a/B", b"trailers", b"v" * 40, b"\xff", b"w" * 300]
KINDS: list[Callable[..., HeaderTuple]] = [HeaderTuple, NeverIndexedHeaderTuple]
FIELDS = st.builds(
    lambda kind, name, value: kind(name, value),
    st.sampled_from(KINDS),
    st.sampled_from(NAMES),
    st.sampled_from(VALUES),
)
LISTS = st.lists(FIELDS, max_size=5)
SIZES = st.sampled_from([0, 40, 100, 200, 4_096, 10_000])

CALL = [HeaderTuple(b":path", b"/a/B"), HeaderTuple(b"te", b"trailers")]


def table(coder: Encoder | Decoder) -> tuple[Any, ...]:
    held = coder.header_table
    return list(held.dynamic_entries), held.maxsize, held.resized, held._current_size


def decoded(decoder: Decoder, block: bytes, raw: bool) -> Any:
    """The fields with their kinds, or the error that came instead."""
    try:
        return [(type(field), field) for field in decoder.decode(block, raw=raw)]
    except HPACKError as error:
        return type(error), str(error)


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What may happen to a coder, in an order in which much is repeated."""
    lists = draw(st.lists(LISTS, min_size=1, max_size=3))
    step = st.one_of(
        st.tuples(st.just("fields"), st.sampled_from(lists)),
        st.tuples(st.just("fields"), st.sampled_from(lists)),
        st.tuples(st.just("fields"), LISTS),
        st.tuples(st.just("size"), SIZES),
        st.tuples(st.just("limit"), SIZES),
        st.tuples(st.just("garbage"), st.binary(max_size=6)),
    )
    return draw(st.lists(step, max_size=30))


@settings(max_examples=400, deadline=None)
@given(steps(), st.booleans())
def test_a_remembering_decoder_is_hpacks_own(steps: list[tuple[str, Any]], raw: bool) -> None:
    plain, ours, encoder = Decoder(), CachingDecoder(), Encoder()
    for what, value in steps:
        if what == "size":
            encoder.header_table_size = value
        elif what == "limit":
            plain.max_header_list_size = ours.max_header_list_size = value
            plain.max_allowed_table_size = ours.max_allowed_table_size = max(value, 100)
        else:
            block = value if what == "garbage" else encoder.encode(value)
            for _ in range(2):  # what inserts a field means something else the second time
                assert decoded(ours, block, raw) == decoded(plain, block, raw)
                assert table(ours) == table(plain)
        assert table(ours) == table(plain)


@settings(max_examples=400, deadline=None)
@given(steps(), st.booleans())
def test_a_remembering_encoder_is_hpacks_own(steps: list[tuple[str, Any]], huffman: bool) -> None:
    plain, ours = CappedEncoder(), CachingEncoder()
    for what, value in steps:
        if what == "size":
            plain.header_table_size = ours.header_table_size = value
        elif what == "fields":
            assert ours.encode(value, huffman) == plain.encode(value, huffman)
        assert table(ours) == table(plain)
        assert ours.table_size_changes == plain.table_size_changes


def test_a_block_of_known_fields_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, decoder = Encoder(), CachingDecoder()
    decoder.decode(encoder.encode(CALL), raw=True)
    block = encoder.encode(CALL)
    assert decoder.decode(block, raw=True) == CALL
    monkeypatch.setattr(Decoder, "decode", None)
    assert decoder.decode(block, raw=True) == CALL
    assert decoder.cached(block) == CALL


def test_fields_of_known_blocks_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = CachingEncoder()
    encoder.encode(CALL)
    block = encoder.encode(CALL)
    monkeypatch.setattr(Encoder, "encode", None)
    assert encoder.encode(CALL) == block


def test_what_is_given_away_may_be_changed() -> None:
    encoder, decoder = Encoder(), CachingDecoder()
    decoder.decode(encoder.encode(CALL), raw=True)
    block = encoder.encode(CALL)
    for _ in range(3):
        fields = decoder.decode(block, raw=True)
        assert isinstance(fields, list)
        fields.clear()
    assert decoder.decode(block, raw=True) == CALL


def test_a_block_that_inserts_a_field_is_not_remembered() -> None:
    block = Encoder().encode([(b"x-new", b"1")])
    decoder = CachingDecoder()
    decoder.decode(block, raw=True)
    assert decoder.cached(block) is None


def test_an_insertion_makes_the_decoder_forget() -> None:
    encoder, decoder = Encoder(), CachingDecoder()
    decoder.decode(encoder.encode(CALL), raw=True)
    block = encoder.encode(CALL)
    decoder.decode(block, raw=True)
    decoder.decode(encoder.encode([(b"x-new", b"1")]), raw=True)
    assert decoder.cached(block) is None
    assert decoder.decode(block, raw=True) != CALL  # the indexes have moved


def test_a_limit_that_sinks_holds_for_remembered_blocks() -> None:
    decoder = CachingDecoder()
    block = b"\x82\x86"  # :method GET, :scheme http
    decoder.decode(block, raw=True)
    decoder.max_header_list_size = 40
    with pytest.raises(HPACKError):
        decoder.decode(block, raw=True)


def test_memory_for_blocks_is_bounded() -> None:
    encoder, decoder = CachingEncoder(), CachingDecoder()
    for number in range(3 * MAX_BLOCKS):
        fields = [NeverIndexedHeaderTuple(b"x", b"%d" % number)]
        decoder.decode(encoder.encode(fields), raw=True)
    long = [NeverIndexedHeaderTuple(b"x", b"\0" * MAX_BLOCK_BYTES)]
    block = encoder.encode(long)
    decoder.decode(block, raw=True)
    many = b"\x82" * (MAX_FIELDS + 1)
    decoder.decode(many, raw=True)
    assert decoder.cached(block) is decoder.cached(many) is None
    assert 0 < len(decoder._blocks) <= MAX_BLOCKS
    assert 0 < len(encoder._blocks) <= MAX_BLOCKS
    assert max(map(len, encoder._blocks.values())) <= MAX_BLOCK_BYTES


def test_a_client_does_not_decide_over_the_encoders_memory() -> None:
    for encoder in (CappedEncoder(), CachingEncoder()):
        encoder.header_table_size = 1 << 30
        assert encoder.header_table_size == ENCODER_TABLE_BYTES
