"""The codec against google's protobuf, message by message and byte by byte; Struct and time."""

import copy
import gc
import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_pb.codec import CHILDREN, CODECS
from routing_pb.google.protobuf import ListValue, NullValue, Struct, Timestamp, Value

from routing import wire
from routing.errors import BadMessage
from routing.protobuf.wireformat import (
    MAX_FIELDS,
    check_field_count,
    decode_message,
    write_int32,
    write_int64,
)
from support.differential import CLASSES, GOOGLE, OURS, compare, disagreement, fill, mutate, varint

NAMES = sorted(GOOGLE)
REQUEST = "ipfs_kit_py.routing.SelectBackendRequest"
INSIGHTS = "ipfs_kit_py.routing.GetInsightsRequest"
NUMBERS = "grpc.reflection.v1.ExtensionNumberResponse"
STRUCT = "google.protobuf.Struct"

every_message = pytest.mark.parametrize("name", NAMES)


def made_up(name: str, seed: int) -> Any:
    """Google's message of this name with values that the seed stands for."""
    return fill(random.Random(seed), GOOGLE[name]())


def piece(number: int, content: bytes) -> bytes:
    """A field of wire type 2."""
    return varint(number << 3 | 2) + varint(len(content)) + content


seeds = st.integers(0, 2**32)
some_names = st.sampled_from(NAMES)


# What is valid


@given(some_names, seeds)
@settings(max_examples=400)
def test_a_message_of_google_reads_the_same_and_is_written_back_the_same(name: str, seed: int) -> None:
    assert disagreement(name, made_up(name, seed).SerializeToString()) == ""


@given(some_names, seeds)
@settings(max_examples=200)
def test_betterproto2_reads_and_writes_the_same(name: str, seed: int) -> None:
    """Apart from -0.0, which it takes for the default and google does not."""
    data = made_up(name, seed).SerializeToString()
    ours, theirs = decode_message(OURS[name], data), CLASSES[name].parse(data)
    assert ours == theirs
    assert repr(ours) == repr(theirs)
    if b"\0\0\0\0\0\0\0\x80" not in data:
        assert OURS[name].encode(ours) == bytes(theirs)


@every_message
def test_a_decoded_message_is_like_one_from_the_constructor(name: str) -> None:
    decoded, constructed = decode_message(OURS[name], b""), CLASSES[name]()
    assert vars(decoded) == vars(constructed)
    assert list(vars(decoded)) == list(vars(constructed))
    assert copy.deepcopy(decoded) == decoded
    assert bytes(decoded) == b""
    assert OURS[name].encode(constructed) == b""


@given(some_names, st.lists(seeds, min_size=2, max_size=4))
@settings(max_examples=200)
def test_pieces_of_a_message_merge_as_google_merges_them(name: str, several: list[int]) -> None:
    assert disagreement(name, b"".join(made_up(name, seed).SerializeToString() for seed in several)) == ""


@pytest.mark.parametrize(
    ("pieces", "struct"),
    [
        (["0a050a016112 00"], {"a": wire.NO_KIND}),
        (["0a03 0a0161"], {"a": wire.NO_KIND}),
        (["0a00"], {"": wire.NO_KIND}),
        (["0a07 0a016112022001", "0a07 0a016112022000"], {"a": False}),
        # Two pieces of one value in one entry: the lists join, and another kind replaces them.
        (["0a0f 0a0161 1204 32020a00 1204 32020a00"], {"a": [wire.NO_KIND, wire.NO_KIND]}),
        (["0a0d 0a0161 1204 32020a00 1202 2001"], {"a": True}),
        (["0a0d 0a0161 1202 2001 1204 32020a00"], {"a": [wire.NO_KIND]}),
        # The same between entries: the later one replaces.
        (["0a09 0a0161 1204 32020a00", "0a07 0a0161 1202 3200"], {"a": []}),
        # As google's Python does: an entry with something unknown in it is not in the map.
        (["0a07 0a0161 1200 1801"], {}),
    ],
)
def test_the_last_entry_wins_and_pieces_of_a_value_merge(pieces: list[str], struct: dict[str, Any]) -> None:
    data = bytes.fromhex("".join(pieces))
    assert wire.read_struct(decode_message(OURS[STRUCT], data)) == struct
    assert disagreement(STRUCT, data) == ""


# What is not


@every_message
def test_a_message_cut_short_at_any_byte_is_parsed_iff_google_parses_it(name: str) -> None:
    for seed in range(3):
        data = made_up(name, seed).SerializeToString()[:1500]
        for length in range(len(data)):
            assert disagreement(name, data[:length]) == "", data[:length].hex()


@given(some_names, some_names, seeds)
@settings(max_examples=500)
def test_a_mutated_message_is_parsed_iff_google_parses_it(name: str, other: str, seed: int) -> None:
    rng = random.Random(seed)
    data = fill(rng, GOOGLE[name]()).SerializeToString()
    splice = fill(rng, GOOGLE[other]()).SerializeToString()
    for _ in range(20):
        mutated = mutate(rng, data, splice)
        assert disagreement(name, mutated) == "", mutated.hex()


@given(some_names, st.binary(max_size=40))
@settings(max_examples=500)
def test_noise_is_parsed_iff_google_parses_it(name: str, data: bytes) -> None:
    assert disagreement(name, data) == ""


@pytest.mark.parametrize(
    ("name", "data", "parsed"),
    [
        (INSIGHTS, "0a0161", True),
        (INSIGHTS, "0a0261", False),
        (INSIGHTS, "0a", False),
        (INSIGHTS, "80", False),
        (INSIGHTS, "0a02c328", False),
        (INSIGHTS, "0a03eda080", False),  # a surrogate
        (INSIGHTS, "0a02c080", False),  # NUL in two bytes
        (INSIGHTS, "0000", False),
        (INSIGHTS, "0200", False),
        (INSIGHTS, "8000", False),  # field number 0 in two bytes
        (INSIGHTS, "0e", False),
        (INSIGHTS, "0f", False),
        (INSIGHTS, "7e00", False),
        (INSIGHTS, "7b7c", True),
        (INSIGHTS, "7b0a02ffff7c", True),
        (INSIGHTS, "7b00007c", True),
        (INSIGHTS, "7b", False),
        (INSIGHTS, "7c", False),
        (INSIGHTS, "7b747c", False),
        (INSIGHTS, "7b73747c", True),
        (INSIGHTS, "7b73 7c74", False),
        (INSIGHTS, "0b0c", True),  # a group where a string is known
        (INSIGHTS, "0800", True),
        (INSIGHTS, "0d00000000", True),
        (INSIGHTS, "090000000000000000", True),
        (INSIGHTS, "0d000000", False),
        (INSIGHTS, "0900000000000000", False),
        (INSIGHTS, "18ffffffffffffffffff01", True),
        (INSIGHTS, "18ffffffffffffffff7f", True),
        (INSIGHTS, "18ffffffffffffffffff7f", True),
        (INSIGHTS, "18ffffffffffffffffffff01", False),
        (INSIGHTS, "18ffffffff1f", True),
        (INSIGHTS, "8a000161", True),  # needless zeros in a tag
        (INSIGHTS, "8a808080000161", True),
        (INSIGHTS, "8a80808080000161", False),
        (INSIGHTS, "8a808080700161", False),  # a tag past 32 bits
        (INSIGHTS, "faffffff0f0161", True),
        (INSIGHTS, "0a818080800061", True),
        (INSIGHTS, "0a81808080800061", False),
        (INSIGHTS, "0affffffff07", False),
        (INSIGHTS, "0affffffff0f", False),
        (NUMBERS, "1003", True),
        (NUMBERS, "12020304", True),
        (NUMBERS, "1202038f1001", False),  # a packed number that runs over its piece
        (NUMBERS, "1200", True),
        (REQUEST, "42018000", False),  # field number 0 whose second byte is past its message
        (REQUEST, "42020a05 0a036162", False),
        (REQUEST, "5802", True),
        (REQUEST, "58808080808080808001", True),
    ],
)
def test_the_corners_of_the_encoding_are_where_google_has_them(name: str, data: str, parsed: bool) -> None:
    assert disagreement(name, bytes.fromhex(data)) == ""
    if parsed:
        assert decode_message(OURS[name], bytes.fromhex(data)) is not None
    else:
        with pytest.raises(BadMessage):
            decode_message(OURS[name], bytes.fromhex(data))


def nested(depth: int, wrap: Callable[[bytes], bytes], data: bytes = b"") -> bytes:
    for _ in range(depth):
        data = wrap(data)
    return data


def in_an_entry(held: bytes) -> bytes:
    return piece(1, piece(1, b"k") + piece(2, held))


def structs(depth: int) -> bytes:
    return nested(depth, lambda inner: in_an_entry(piece(5, inner)))


def structs_with_an_empty_entry(depth: int) -> bytes:
    return nested(depth, lambda inner: in_an_entry(piece(5, inner)), piece(1, b""))


def lists(depth: int) -> bytes:
    return in_an_entry(piece(6, nested(depth, lambda inner: piece(1, piece(6, inner)))))


def groups(depth: int) -> bytes:
    return b"\x7b" * depth + b"\x7c" * depth


def groups_in_a_value(depth: int) -> bytes:
    return in_an_entry(groups(depth))


def groups_in_an_entry(depth: int) -> bytes:
    return piece(1, groups(depth))


@pytest.mark.parametrize(
    ("shape", "depths"),
    [
        (structs, range(30, 37)),
        (structs_with_an_empty_entry, range(30, 37)),
        (lists, range(45, 54)),
        (groups, range(95, 106)),
        (groups_in_a_value, range(93, 106)),
        (groups_in_an_entry, range(93, 106)),
    ],
)
def test_nesting_ends_where_google_ends_it(shape: Any, depths: range) -> None:
    messages = [shape(depth) for depth in depths]
    assert [disagreement(STRUCT, data) for data in messages] == [""] * len(messages)
    decode_message(OURS[STRUCT], messages[0])
    with pytest.raises(BadMessage, match="deeper than 100"):
        decode_message(OURS[STRUCT], messages[-1])


def time_field(seconds: int, nanos: int) -> bytes:
    return piece(10, b"\x08" + varint(seconds % 2**64) + b"\x10" + varint(nanos % 2**64))


@pytest.mark.parametrize(
    ("seconds", "nanos", "held"),
    [
        (0, 0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, 999_999_999, datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (-62_135_596_800, 0, datetime(1, 1, 1, tzinfo=UTC)),
        (253_402_300_799, 999_999_999, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (-62_135_596_801, 0, None),
        (253_402_300_800, 0, None),
        (2**63 - 1, 0, None),
        (-(2**63), 0, None),
        (0, -1, None),
        (0, 10**9, None),
    ],
)
def test_a_time_that_no_datetime_holds_is_refused_though_google_would_parse_it(
    seconds: int, nanos: int, held: datetime | None
) -> None:
    data = time_field(seconds, nanos)
    assert GOOGLE[REQUEST].FromString(data).timestamp.seconds == seconds
    if held is None:
        with pytest.raises(BadMessage, match="a timestamp "):
            decode_message(OURS[REQUEST], data)
    else:
        assert decode_message(OURS[REQUEST], data).timestamp == held


def test_a_time_in_two_pieces_counts_as_a_whole() -> None:
    data = piece(10, b"\x10" + varint(500_000_000)) + piece(10, b"\x08\x05")
    assert disagreement(REQUEST, data) == ""
    assert wire.read_time(decode_message(OURS[REQUEST], data).timestamp) == 5.5


def test_unknown_fields_are_read_over_and_not_sent_on() -> None:
    message = decode_message(OURS[INSIGHTS], piece(1, b"s3") + piece(99, b"new") + b"\x7b\x7c")
    assert message == wire.GetInsightsRequest(backend_id="s3")
    assert OURS[INSIGHTS].encode(message) == piece(1, b"s3")


# The codec that grpclib gets


def test_the_codec_turns_messages_to_bytes_and_back() -> None:
    codec, message = wire.Codec(), wire.GetInsightsRequest(backend_id="s3", time_window_hours=24)
    assert codec.encode(message, wire.GetInsightsRequest) == b"\x0a\x02s3\x18\x18"
    assert codec.decode(b"\x0a\x02s3\x18\x18", wire.GetInsightsRequest) == message


def test_bytes_that_are_not_the_message_are_a_bad_message_that_names_it() -> None:
    with pytest.raises(BadMessage) as raised:
        wire.Codec().decode(b"\x0a\x05", wire.GetInsightsRequest)
    assert raised.value.message == "not a ipfs_kit_py.routing.GetInsightsRequest: it is cut short"


def test_a_message_of_another_type_is_our_mistake() -> None:
    with pytest.raises(TypeError, match="expected a GetInsightsRequest, not a StreamMetricsRequest"):
        wire.Codec().encode(wire.StreamMetricsRequest(), wire.GetInsightsRequest)


def test_a_type_without_a_codec_is_our_mistake() -> None:
    with pytest.raises(TypeError, match="no codec for int"):
        wire.Codec().encode(5, int)
    with pytest.raises(TypeError, match="no codec for int"):
        wire.Codec().decode(b"", int)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (wire.GetInsightsRequest(time_window_hours=2**31), "int32"),
        (wire.GetInsightsRequest(time_window_hours=-(2**31) - 1), "int32"),
        (wire.SelectBackendRequest(content_size=2**63), "int64"),
        (wire.SelectBackendRequest(content_size=-(2**63) - 1), "int64"),
    ],
)
def test_a_number_that_does_not_fit_is_not_sent(message: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        wire.Codec().encode(message, type(message))


@pytest.mark.parametrize(("write", "bits"), [(write_int32, 32), (write_int64, 64)])
def test_the_largest_and_the_smallest_number_fit(write: Any, bits: int) -> None:
    assert write(2 ** (bits - 1) - 1) == varint(2 ** (bits - 1) - 1)
    assert write(-(2 ** (bits - 1))) == varint(2**64 - 2 ** (bits - 1))


def test_a_time_without_a_zone_is_not_sent() -> None:
    message = wire.RecordOutcomeResponse(timestamp=datetime(2026, 1, 1))
    with pytest.raises(TypeError):
        wire.Codec().encode(message, type(message))


# What one message may cost


IN_METADATA = [4]
IN_A_LIST = [4, 1, 2, 6]


@pytest.mark.parametrize(
    ("unit", "fields", "around"),
    [
        pytest.param(b"\x78\x00", 1, [], id="unknown numbers"),
        pytest.param(b"\x7b\x7c", 2, [], id="unknown groups"),
        pytest.param(b"\xfa\x7f\x00", 2, [], id="tags of two bytes"),
        pytest.param(b"\x78" + b"\xff" * 9 + b"\x01", 3, [], id="numbers of ten bytes"),
        pytest.param(b"\x0d" + bytes(4), 1, [], id="numbers of four bytes"),
        pytest.param(b"\x3a\x00", 1, [], id="empty names"),
        pytest.param(b"\x22\x00", 1, [], id="empty pieces of metadata"),
        pytest.param(b"\x0a\x00", 1, IN_METADATA, id="empty entries"),
        pytest.param(b"\x0a\x00", 1, IN_A_LIST, id="empty values in a list"),
        pytest.param(b"\x0a\x02\x2a\x00", 2, IN_A_LIST, id="empty structs in a list"),
        pytest.param(b"\x0a\x09\x11" + bytes(8), 2, IN_A_LIST, id="numbers in a list"),
    ],
)
def test_a_message_of_too_many_fields_is_refused(unit: bytes, fields: int, around: list[int]) -> None:
    """Counted are the units, what is around them, and one more that makes it long."""
    codec = wire.Codec(max_fields=1000)

    def message(units: int) -> bytes:
        data = unit * units + piece(15, bytes(2000))
        for number in reversed(around):
            data = piece(number, data)
        return data

    most = (1000 - 1 - len(around)) // fields
    assert isinstance(codec.decode(message(most), wire.SelectBackendRequest), wire.SelectBackendRequest)
    with pytest.raises(BadMessage, match="more than 1,000 fields"):
        codec.decode(message(most + 1), wire.SelectBackendRequest)


def test_packed_numbers_count_by_their_bytes() -> None:
    check_field_count(piece(2, bytes(8)), CHILDREN, NUMBERS, 9)
    with pytest.raises(BadMessage, match="more than 8 fields"):
        check_field_count(piece(2, bytes(8)) + b"\x10\x00", CHILDREN, NUMBERS, 8)


@given(some_names, seeds)
@settings(max_examples=100)
def test_fields_are_counted_as_a_plain_recursion_counts_them(name: str, seed: int) -> None:
    message = made_up(name, seed)
    count = count_plainly(message)
    check_field_count(message.SerializeToString(), CHILDREN, name, count)
    if count:
        with pytest.raises(BadMessage):
            check_field_count(message.SerializeToString(), CHILDREN, name, count - 1)


def count_plainly(message: Any) -> int:
    count = 0
    for field, value in message.ListFields():
        if field.message_type is None:
            packed = field.is_repeated and field.is_packed
            bytes_inside = sum(len(varint(number % 2**64)) for number in value) if packed else 0
            count += 1 + bytes_inside if packed or not field.is_repeated else len(value)
            if not field.is_repeated and isinstance(value, int):
                count += len(varint(value % 2**64)) // 4
        elif field.message_type.GetOptions().map_entry:
            count += sum(3 + count_plainly(held) for held in value.values())
        else:
            count += sum(1 + count_plainly(held) for held in (value if field.is_repeated else [value]))
    return count


def test_a_message_that_claims_more_than_is_around_it_counts_no_field_twice() -> None:
    claim = piece(4, b"\x0a\x7f")
    check_field_count(claim * 100 + b"\x78\x00" * 100, CHILDREN, REQUEST, 300)


@given(some_names, st.binary(max_size=60))
@settings(max_examples=200)
def test_counting_leaves_what_is_malformed_to_the_decoder(name: str, data: bytes) -> None:
    try:
        check_field_count(data, CHILDREN, name, 1000)
    except BadMessage:
        with pytest.raises(BadMessage):
            decode_message(OURS[name], data)


def test_a_hundred_thousand_values_are_fine() -> None:
    values = {f"key {at}": float(at) for at in range(100_000)}
    codec, message = wire.Codec(), wire.SelectBackendRequest(metadata=wire.write_struct(values))
    data = codec.encode(message, wire.SelectBackendRequest)
    assert len(data) > 2 * MAX_FIELDS
    assert wire.read_struct(codec.decode(data, wire.SelectBackendRequest).metadata) == values


@pytest.mark.parametrize("data", [piece(1, bytes(100_000)), piece(1, b"\xff" * 100_000)])
def test_garbage_is_collected_again_after_a_large_message(data: bytes) -> None:
    try:
        wire.Codec().decode(data, wire.GetInsightsRequest)
    except BadMessage:
        assert data[-1] == 255
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        wire.Codec().decode(piece(1, bytes(100_000)), wire.GetInsightsRequest)
        assert not gc.isenabled()
    finally:
        gc.enable()


# Plain values and time

plain = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=5))
def test_plain_values_pass_through_a_struct_unchanged(values: dict[str, Any]) -> None:
    struct = wire.write_struct(values)
    assert wire.read_struct(struct) == values
    assert list(wire.read_struct(struct)) == list(values)
    codec = OURS[STRUCT]
    assert wire.read_struct(decode_message(codec, codec.encode(struct))) == values
    assert compare(struct, GOOGLE[STRUCT].FromString(codec.encode(struct))) == ""


def test_numbers_become_floats_and_sequences_lists() -> None:
    read = wire.read_struct(wire.write_struct({"n": 3, "t": ("a", "b"), "s": frozenset({1})}))
    assert read == {"n": 3.0, "t": ["a", "b"], "s": [1.0]}
    assert type(read["n"]) is float


def test_a_written_struct_is_like_one_from_the_constructors() -> None:
    expected = Struct(
        fields={
            "a": Value(number_value=1.0),
            "b": Value(list_value=ListValue(values=[Value(null_value=NullValue.NULL_VALUE)])),
            "c": Value(struct_value=Struct(fields={"d": Value(bool_value=False)})),
        }
    )
    assert wire.write_struct({"a": 1, "b": [None], "c": {"d": False}}) == expected


def test_an_absent_struct_is_an_empty_one() -> None:
    assert wire.read_struct(None) == {}


def test_a_value_without_a_kind_is_told_from_null() -> None:
    struct = Struct(fields={"null": Value(null_value=NullValue.NULL_VALUE), "nothing": Value()})
    assert wire.read_struct(struct) == {"null": None, "nothing": wire.NO_KIND}
    assert repr(wire.NO_KIND) == "a Value without a kind"


@pytest.mark.parametrize("value", [b"bytes", object(), 1j, datetime.now(UTC)])
def test_what_json_has_no_word_for_is_not_written(value: object) -> None:
    with pytest.raises(TypeError, match=f"cannot hold a {type(value).__name__}"):
        wire.write_struct({"key": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="not a number that a Struct can hold"):
        wire.write_struct({"key": value})


@pytest.mark.parametrize("wrap", [lambda inner: {"k": inner}, lambda inner: [inner]])
def test_values_nest_as_deep_as_a_peer_can_read_and_no_deeper(wrap: Any) -> None:
    def request(depth: int) -> bytes:
        held: Any = "the end"
        for _ in range(depth - 1):
            held = wrap(held)
        message = wire.SelectBackendRequest(metadata=wire.write_struct({"k": held}))
        return wire.Codec().encode(message, wire.SelectBackendRequest)

    assert GOOGLE[REQUEST].FromString(request(wire.MAX_STRUCT_DEPTH))
    assert wire.Codec().decode(request(wire.MAX_STRUCT_DEPTH), wire.SelectBackendRequest)
    with pytest.raises(ValueError, match="deeper than 33 levels"):
        request(wire.MAX_STRUCT_DEPTH + 1)


def test_one_level_more_than_we_write_would_be_too_deep_for_a_peer() -> None:
    held = in_an_entry(b"\x20\x01")
    readable = nested(wire.MAX_STRUCT_DEPTH - 1, lambda inner: in_an_entry(piece(5, inner)), held)
    assert GOOGLE[REQUEST].FromString(piece(4, readable))
    with pytest.raises(DecodeError):
        GOOGLE[REQUEST].FromString(piece(4, in_an_entry(piece(5, readable))))


@given(st.floats(-62_135_596_800, 253_402_300_000))
def test_time_passes_through_a_message_unchanged_to_the_microsecond(seconds: float) -> None:
    assert wire.read_time(wire.write_time(seconds)) == pytest.approx(seconds, abs=1e-5)
    codec, message = wire.Codec(), wire.RecordOutcomeResponse(timestamp=wire.write_time(seconds))
    data = codec.encode(message, wire.RecordOutcomeResponse)
    assert codec.decode(data, wire.RecordOutcomeResponse) == message
    assert compare(message, GOOGLE["ipfs_kit_py.routing.RecordOutcomeResponse"].FromString(data)) == ""


def test_a_time_of_another_zone_is_sent_as_utc() -> None:
    local = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    message = wire.RecordOutcomeResponse(timestamp=local)
    data = wire.Codec().encode(message, wire.RecordOutcomeResponse)
    assert wire.Codec().decode(data, wire.RecordOutcomeResponse).timestamp == datetime(
        2026, 1, 1, 10, tzinfo=UTC
    )


def test_no_time_reads_as_none() -> None:
    assert wire.read_time(None) is None


def test_every_message_has_its_codec() -> None:
    assert {codec.name for codec in CODECS.values()} == set(NAMES)
    assert CODECS[Timestamp].name == "google.protobuf.Timestamp"
