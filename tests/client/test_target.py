from pathlib import Path

import pytest

from routing.client import RoutingClient, TlsFiles
from routing.client.target import address, opener
from routing.errors import ConfigError, InvalidArgument
from support.certificates import self_signed


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:50051", ("localhost", 50051)),
        ("router.example", ("router.example", 50051)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::1]", ("::1", 50051)),
    ],
)
def test_a_target_is_a_host_and_perhaps_a_port(target: str, expected: tuple[str, int]) -> None:
    assert address(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        "",
        ":50051",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "host:-1",
        "::1",
        "::1:50051",
        "[]:1",
        "host:５",
    ],
)
def test_what_is_no_target_is_refused_before_anything_is_opened(target: str) -> None:
    with pytest.raises(InvalidArgument, match=r"target: .* expected HOST:PORT"):
        RoutingClient(target)


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TlsFiles: ca: '.*absent\.pem': expected a PEM file"):
        opener("localhost", TlsFiles(ca=str(tmp_path / "absent.pem")))


def test_a_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    pair, other = self_signed(tmp_path, "one"), self_signed(tmp_path, "two")
    with pytest.raises(ConfigError, match=r"TlsFiles: certificate: .*expected PEM files that match"):
        opener("localhost", TlsFiles(certificate=str(pair.certificate), key=str(other.key)))
