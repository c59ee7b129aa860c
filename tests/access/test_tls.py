"""A wrong certificate or key is one line that names the setting, and never a prompt."""

import datetime
import os
import ssl
from pathlib import Path

import pytest

from routing.access.tls import NewestContext, TlsFiles, server_context
from routing.errors import ConfigError
from support.certificates import Pair, self_signed, signed_by


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


def refusal(certificate: object, key: object) -> str:
    with pytest.raises(ConfigError) as refused:
        server_context(TlsFiles(str(certificate), str(key)))
    message = refused.value.message
    assert len(message.splitlines()) == 1
    return message


def context_of(pair: Pair, authority: Pair | None = None, *, required: bool = True) -> ssl.SSLContext:
    client_ca = str(authority.certificate) if authority else ""
    return server_context(TlsFiles(str(pair.certificate), str(pair.key), client_ca, required))


def handshake(
    context: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """Both ends in memory, until they have shaken hands; the client's end is returned."""
    return _ends(context, client, session)[0]


def shaken(context: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The same, and the server's end."""
    return _ends(context, client, None)[1]


def _ends(
    context: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    end = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    for _ in range(4):
        for side in (end, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return end, server


def trusting(pair: Pair, version: ssl.TLSVersion, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pair.certificate))
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_agree_on_h2(pair: Pair, version: ssl.TLSVersion) -> None:
    end = handshake(context_of(pair), trusting(pair, version, "h2", "http/1.1"))
    assert end.selected_alpn_protocol() == "h2"
    assert end.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_tls_is_refused(pair: Pair) -> None:
    client = trusting(pair, ssl.TLSVersion.TLSv1_2)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        handshake(context_of(pair), client)


def test_no_client_may_renegotiate(pair: Pair) -> None:
    assert context_of(pair).options & ssl.OP_NO_RENEGOTIATION


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


# Clients' certificates


def showing(server: Pair, client: Pair | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that trusts this server, and shows its own certificate."""
    context = trusting(server, version, "h2")
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
def test_a_client_that_the_authority_vouches_for_is_let_in(
    pair: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = self_signed(tmp_path, "authority")
    client = signed_by(authority, tmp_path, "client", common_name="uploader")
    server = shaken(context_of(pair, authority), showing(pair, client, version))
    assert server.getpeercert()["subject"] == ((("commonName", "uploader"),),)


@VERSIONS
@pytest.mark.parametrize("required", [True, False])
def test_a_client_of_another_authority_is_refused(
    pair: Pair, tmp_path: Path, version: ssl.TLSVersion, required: bool
) -> None:
    authority, other = self_signed(tmp_path, "authority"), self_signed(tmp_path, "other")
    client = signed_by(other, tmp_path, "client", common_name="uploader")
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shaken(context_of(pair, authority, required=required), showing(pair, client, version))


@VERSIONS
def test_a_client_whose_certificate_has_expired_is_refused(
    pair: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = self_signed(tmp_path, "authority")
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    client = signed_by(authority, tmp_path, "client", common_name="uploader", until=past)
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        shaken(context_of(pair, authority), showing(pair, client, version))


@VERSIONS
def test_a_client_without_a_certificate_is_let_in_only_if_it_may_have_something_else(
    pair: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = self_signed(tmp_path, "authority")
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shaken(context_of(pair, authority), showing(pair, None, version))
    server = shaken(context_of(pair, authority, required=False), showing(pair, None, version))
    assert not server.getpeercert()


def test_a_wrong_authority_is_named(pair: Pair, tmp_path: Path) -> None:
    absent, garbage = tmp_path / "absent.pem", tmp_path / "garbage.pem"
    garbage.write_bytes(b"garbage")
    for path, words in (
        (absent, "a readable PEM file (no such file or directory)"),
        (tmp_path, "a readable PEM file (is a directory)"),
        (garbage, "a PEM file with a certificate"),
        (pair.key, "a PEM file with a certificate"),
    ):
        with pytest.raises(ConfigError) as refused:
            server_context(TlsFiles(str(pair.certificate), str(pair.key), str(path)))
        assert refused.value.message == f"server: ssl_client_ca: '{path}': expected {words}"


# The newest files


@VERSIONS
def test_new_connections_begin_with_the_newest_certificate(
    pair: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    renewed = self_signed(tmp_path, "renewed")
    context = NewestContext(context_of(pair))
    handshake(context, trusting(pair, version))
    context.newest = context_of(renewed)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, trusting(pair, version))
    handshake(context, trusting(renewed, version))


@VERSIONS
def test_a_removed_authority_verifies_no_client(pair: Pair, tmp_path: Path, version: ssl.TLSVersion) -> None:
    before, after = self_signed(tmp_path, "before"), self_signed(tmp_path, "after")
    client = signed_by(before, tmp_path, "client", common_name="uploader")
    context = NewestContext(context_of(pair, before))
    shaken(context, showing(pair, client, version))
    context.newest = context_of(pair, after)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shaken(context, showing(pair, client, version))


def test_a_session_of_a_removed_authority_is_not_resumed(pair: Pair, tmp_path: Path) -> None:
    before, after = self_signed(tmp_path, "before"), self_signed(tmp_path, "after")
    client = showing(
        pair, signed_by(before, tmp_path, "client", common_name="uploader"), ssl.TLSVersion.TLSv1_2
    )
    context = NewestContext(context_of(pair, before))
    session = handshake(context, client).session
    assert handshake(context, client, session).session_reused
    context.newest = context_of(pair, after)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(context, client, session)
