"""A wrong certificate or key is one line that names the setting, and never a prompt."""

import os
import ssl
from pathlib import Path

import pytest
from certificates import Pair, self_signed

from routing.errors import ConfigError
from routing.tls import server_context


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


def refusal(certificate: object, key: object) -> str:
    with pytest.raises(ConfigError) as refused:
        server_context(str(certificate), str(key))
    message = refused.value.message
    assert len(message.splitlines()) == 1
    return message


def handshake(context: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Both ends in memory, until the client has shaken hands; its end is returned."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    end = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (end, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return end


def trusting(pair: Pair, version: ssl.TLSVersion, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pair.certificate))
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_agree_on_h2(pair: Pair, version: ssl.TLSVersion) -> None:
    end = handshake(
        server_context(str(pair.certificate), str(pair.key)), trusting(pair, version, "h2", "http/1.1")
    )
    assert end.selected_alpn_protocol() == "h2"
    assert end.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_tls_is_refused(pair: Pair) -> None:
    client = trusting(pair, ssl.TLSVersion.TLSv1_2)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        handshake(server_context(str(pair.certificate), str(pair.key)), client)


def test_a_missing_certificate_is_named(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.pem"
    assert refusal(path, pair.key) == (
        f"server: ssl_cert: '{path}': expected a readable PEM file (no such file or directory)"
    )


def test_a_missing_key_is_named(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.key"
    assert refusal(pair.certificate, path) == (
        f"server: ssl_key: '{path}': expected a readable PEM file (no such file or directory)"
    )


def test_a_setting_left_out_is_named(pair: Pair) -> None:
    assert (
        refusal("", pair.key) == "server: ssl_cert: '': expected the path of a PEM file, which use_ssl needs"
    )
    assert refusal(pair.certificate, "").startswith("server: ssl_key: ''")


def test_a_folder_is_not_a_certificate_or_a_key(pair: Pair, tmp_path: Path) -> None:
    assert refusal(tmp_path, pair.key).startswith("server: ssl_cert: ")
    assert refusal(pair.certificate, tmp_path).endswith("expected a readable PEM file (is a directory)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_key_is_named(pair: Pair) -> None:
    pair.key.chmod(0)
    assert refusal(pair.certificate, pair.key).endswith("(permission denied)")


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x00\xff" * 100, b"-----BEGIN CERTIFICATE-----\nAAAA\n"]
)
def test_garbage_is_neither_a_certificate_nor_a_key(pair: Pair, tmp_path: Path, content: bytes) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(content)
    assert refusal(garbage, pair.key) == (
        f"server: ssl_cert: '{garbage}': expected a PEM file with a certificate"
    )
    assert refusal(pair.certificate, garbage) == (
        f"server: ssl_key: '{garbage}': expected a PEM file with a private key"
    )


def test_a_swapped_pair_is_named_at_the_certificate(pair: Pair) -> None:
    assert refusal(pair.key, pair.certificate).startswith("server: ssl_cert: ")


def test_a_key_of_another_certificate_is_refused(pair: Pair, tmp_path: Path) -> None:
    other = self_signed(tmp_path, "other")
    assert refusal(pair.certificate, other.key) == (
        f"server: ssl_key: '{other.key}': expected the private key of the certificate "
        f"{pair.certificate}, not of another one"
    )


def test_an_encrypted_key_is_refused_without_a_prompt(tmp_path: Path) -> None:
    locked = self_signed(tmp_path, "locked", password=b"secret")
    assert refusal(locked.certificate, locked.key) == (
        f"server: ssl_key: '{locked.key}': expected an unencrypted private key, not one with a password"
    )
