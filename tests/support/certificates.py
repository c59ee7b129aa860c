"""Certificates made for a test: self-signed, for localhost and the loopback addresses, or signed by such."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of one certificate and of its key."""

    certificate: Path
    key: Path


def self_signed(
    folder: Path,
    name: str = "server",
    password: bytes = b"",
    *,
    until: datetime.datetime | None = None,
) -> Pair:
    """A fresh pair in `folder`; with a password, the key is encrypted. It may sign others."""
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    alternatives = [x509.DNSName("localhost"), *map(x509.IPAddress, addresses)]
    return _made(folder, name, "localhost", alternatives, password=password, until=until)


def signed_by(
    authority: Pair,
    folder: Path,
    name: str,
    *,
    common_name: str = "",
    dns: Sequence[str] = (),
    uris: Sequence[str] = (),
    until: datetime.datetime | None = None,
) -> Pair:
    """A client's pair in `folder`, with these names, that the authority has signed."""
    alternatives = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uris)]
    return _made(folder, name, common_name, alternatives, authority=authority, until=until)


def _made(
    folder: Path,
    name: str,
    common_name: str,
    alternatives: Sequence[x509.GeneralName],
    *,
    authority: Pair | None = None,
    password: bytes = b"",
    until: datetime.datetime | None = None,
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    issuer, signing = subject, key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes()).subject
        loaded = load_pem_private_key(authority.key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    until = until or datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=90)
    since = min(datetime.datetime.now(datetime.UTC), until) - datetime.timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.certificate.write_bytes(builder.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return pair
