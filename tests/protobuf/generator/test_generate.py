"""proto/ into gen/: the committed code is the compiler's, whatever machine it runs on."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from routing.errors import ConfigError, MissingExtra, RoutingError
from routing.protobuf.generator import generate as generating
from routing.protobuf.generator.emitter import codec_modules
from routing.protobuf.generator.generate import checkout, generate

ROOT = Path(__file__).parents[3]
PROTO, GEN = ROOT / "proto", ROOT / "gen"

ODD_PROTO = """\
syntax = "proto3";
package odd;
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";

// Names that the emitted code uses itself, and every kind that ours has a row for.
message Odd {
  string data = 1;
  int64 tag = 2;
  repeated bool value = 3;
  repeated Colour size = 4;
  repeated int64 pos = 5;
  map<int32, string> message = 6;
  map<string, int64> body = 7;
  map<bool, Colour> entries = 8;
  map<int64, bytes> stop = 9;
  optional int32 into = 10;
  optional double depth = 11;
  oneof end {
    bool complete = 12;
    Odd key = 13;
    bytes class = 14;
  }
  map<string, double> held = 15;
}

message Nothing {}

message Times {
  google.protobuf.Timestamp out = 1;
  optional string parts = 2;
  google.protobuf.Value item = 3;
  repeated Odd odd = 4;
}

enum Colour {
  COLOUR_NONE = 0;
  COLOUR_RED = 1;
}
"""

COMPARE_ODD = """\
import random, sys
from support.differential import GOOGLE, OURS, disagreement, fill, mutate

assert {"odd.Odd", "odd.Nothing", "odd.Times"} <= set(OURS), sorted(OURS)
rng = random.Random(5)
for name in ("odd.Odd", "odd.Nothing", "odd.Times"):
    for _ in range(150):
        data, other = (fill(rng, GOOGLE[name]()).SerializeToString() for _ in range(2))
        for tried in (data, *(mutate(rng, data, other) for _ in range(20))):
            assert disagreement(name, tried) == "", (name, tried.hex(), disagreement(name, tried))
"""


def test_what_is_committed_is_what_the_compiler_makes() -> None:
    assert generate(PROTO, GEN, check=True) == []


def test_the_settings_of_the_surroundings_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ruff.toml").write_text('line-length = 40\n[format]\nquote-style = "single"\n')
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert generate(PROTO, GEN, check=True) == []


def test_what_is_out_of_date_is_named_then_made_right(tmp_path: Path) -> None:
    assert "routing_pb/codec.py" in generate(PROTO, tmp_path)
    codec, left_over = tmp_path / "routing_pb/codec.py", tmp_path / "routing_pb/old/codec.py"
    fresh = codec.read_bytes()
    codec.write_text("edited by hand")
    left_over.parent.mkdir()
    left_over.touch()
    (tmp_path / "routing_pb/py.typed").unlink()
    stale = ["routing_pb/codec.py", "routing_pb/old/codec.py", "routing_pb/py.typed"]
    assert generate(PROTO, tmp_path, check=True) == stale
    assert codec.read_text() == "edited by hand"
    assert generate(PROTO, tmp_path) == stale
    assert codec.read_bytes() == fresh
    assert not left_over.parent.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["routing_pb"]


def test_an_odd_schema_gets_a_codec_that_agrees_with_google(tmp_path: Path) -> None:
    proto, gen = tmp_path / "proto", tmp_path / "gen"
    proto.mkdir()
    (proto / "odd.proto").write_text(ODD_PROTO)
    generate(proto, gen)
    path = os.pathsep.join([str(gen), str(ROOT / "tests"), *sys.path])
    compared = subprocess.run(
        [sys.executable, "-c", COMPARE_ODD],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stderr


def test_a_mistake_in_a_proto_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "wrong.proto").write_text('syntax = "proto3";\nmessage Wrong {\n  strin name = 1;\n}\n')
    with pytest.raises(RoutingError) as raised:
        generate(tmp_path, tmp_path / "gen")
    assert raised.value.message == f'protoc: {tmp_path}/wrong.proto:3:3: "strin" is not defined.'
    assert not (tmp_path / "gen").exists()


def test_a_folder_without_protos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RoutingError, match=r"has no \.proto files"):
        generate(tmp_path, tmp_path / "gen")


def test_a_compiler_that_says_nothing_still_gives_a_line() -> None:
    assert generating._first_error(" \n") == "it failed without a message"
    assert generating._first_error("Traceback\nOSError: no space\n") == "OSError: no space"


@pytest.mark.parametrize("missing", ["grpc_tools", "ruff"])
def test_without_its_extra_it_says_which(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "ruff":
        monkeypatch.setattr(generating.shutil, "which", lambda name, path: None if name == missing else name)
    else:
        monkeypatch.setattr(generating, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="needs the extra 'generate'"):
        generate(PROTO, GEN, check=True)


def test_in_a_checkout_it_finds_proto_and_gen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "routing" / "protobuf" / "generator" / "generate.py"
    monkeypatch.setattr(generating, "__file__", str(inside))
    (tmp_path / "proto").mkdir()
    with pytest.raises(ConfigError, match=r"expected a source checkout; .* has no proto/routing\.proto"):
        checkout()
    (tmp_path / "proto" / "routing.proto").touch()
    assert checkout() == (tmp_path.resolve() / "proto", tmp_path.resolve() / "gen")


# Field kinds that the emitter does not know end it, rather than a wrong codec.

FieldProto = descriptor_pb2.FieldDescriptorProto


def descriptors(**field: object) -> bytes:
    """One message, in which itself may be nested, with one field."""
    declared = FieldProto(name="it", **({"number": 1, "label": FieldProto.LABEL_OPTIONAL} | field))
    nested = FieldProto(
        name="inner",
        number=2,
        label=FieldProto.LABEL_OPTIONAL,
        type=FieldProto.TYPE_MESSAGE,
        type_name=".p.Message",
    )
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="p", syntax="proto3")
    file.message_type.add(name="Message", field=[declared, nested])
    google = descriptor_pb2.FileDescriptorProto(name="t.proto", package="google.protobuf", syntax="proto3")
    google.message_type.add(name="Timestamp")
    google.message_type.add(name="Duration")
    return descriptor_pb2.FileDescriptorSet(file=[file, google]).SerializeToString()


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"type": FieldProto.TYPE_SINT32}, "its kind, sint32, has no row in KINDS"),
        ({"type": FieldProto.TYPE_FIXED64}, "its kind, fixed64, has no row in KINDS"),
        ({"type": FieldProto.TYPE_STRING, "number": 16}, "its number is above 15"),
        (
            {"type": FieldProto.TYPE_DOUBLE, "label": FieldProto.LABEL_REPEATED},
            "a repeated double is not supported",
        ),
        (
            {"type": FieldProto.TYPE_MESSAGE, "type_name": ".google.protobuf.Duration"},
            "its kind, duration, has no row in KINDS",
        ),
        (
            {"type": FieldProto.TYPE_MESSAGE, "type_name": ".google.protobuf.Timestamp"},
            "a timestamp in a message that may arrive in pieces",
        ),
    ],
)
def test_a_field_that_no_row_knows_ends_the_generator(field: dict[str, object], reason: str) -> None:
    with pytest.raises(RoutingError) as raised:
        codec_modules(descriptors(**field))
    assert raised.value.message == f"no codec can be emitted for p.Message.it: {reason}"


def test_a_field_that_a_row_knows_is_emitted() -> None:
    assert "decode_Message" in codec_modules(descriptors(type=FieldProto.TYPE_STRING))["p/codec.py"]
