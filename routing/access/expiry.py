"""Reads from a PEM file when its certificates expire.

The standard library reports the dates only of certificates that a handshake has verified, which
fails for one that has expired. So this module parses the DER encoding (ITU-T X.690) itself: each
element is a tag, a length, and that many bytes, which may contain elements again.
"""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END", re.DOTALL)

_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_FORMATS: Final = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
"""The two time formats of RFC 5280, section 4.1.2.5."""

_LAST_UTC_YEAR: Final = 2049
"""In RFC 5280 the two-digit year of a UTCTime means 1950 to 2049; strptime reads 1969 to 2068."""


def expires_at(path: str) -> float | None:
    """When the first certificate of the chain in a PEM file expires, in Unix seconds.

    The chain is invalid from then on. None if the file cannot be parsed here: OpenSSL accepts
    encodings that no authority produces.
    """
    try:
        return min(not_after(base64.b64decode(found)) for found in _PEM.findall(Path(path).read_bytes()))
    except (ValueError, LookupError):
        return None


def not_after(certificate: bytes) -> float:
    """The end of a DER certificate's validity, in Unix seconds; ValueError or LookupError for other bytes.

    RFC 5280, section 4.1: Certificate is a SEQUENCE that begins with TBSCertificate, a
    SEQUENCE of version (tagged, and left out in old ones), serial number, algorithm,
    issuer, validity and more. Validity is a SEQUENCE of two times.
    """
    (_, signed), *_ = _elements(certificate)
    (_, to_be_signed), *_ = _elements(signed)
    _serial, _algorithm, _issuer, (_, validity), *_ = (
        one for one in _elements(to_be_signed) if one[0] != _VERSION
    )
    _, (tag, written) = _elements(validity)
    moment = datetime.strptime(written.decode("ascii"), _FORMATS[tag])
    if tag == _UTC_TIME and moment.year > _LAST_UTC_YEAR:
        moment = moment.replace(year=moment.year - 100)
    return moment.replace(tzinfo=UTC).timestamp()


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The consecutive elements in these bytes, as tag and content."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:  # the other seven bits are the number of bytes of the length
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size]), at + size
        if at + length > len(data):
            raise ValueError("an element is longer than the bytes around it")
        yield tag, data[at : at + length]
        at += length
