"""The end of a certificate's validity is read as another library reads it."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from routing.access.expiry import expires_at, not_after
from support.certificates import self_signed

NOON = datetime.datetime(2030, 1, 2, 12, tzinfo=datetime.UTC)

MOMENTS = st.datetimes(datetime.datetime(1951, 1, 1), datetime.datetime(9999, 12, 31)).map(
    lambda one: one.replace(microsecond=0, tzinfo=datetime.UTC)
)
"""Until 2049 with two digits for the year, from then on with four."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@given(MOMENTS)
def test_it_is_what_another_library_reads(folder: Path, until: datetime.datetime) -> None:
    file = self_signed(folder, until=until).certificate
    read = x509.load_pem_x509_certificate(file.read_bytes())
    assert not_after(read.public_bytes(Encoding.DER)) == read.not_valid_after_utc.timestamp()
    assert expires_at(str(file)) == until.timestamp()


def test_of_a_chain_it_is_the_first_to_expire(tmp_path: Path) -> None:
    days = [NOON + datetime.timedelta(days=number) for number in (3, 1, 2)]
    files = [self_signed(tmp_path, str(day.day), until=day).certificate for day in days]
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"Issued to us\n" + b"\n".join(file.read_bytes() for file in files))
    assert expires_at(str(chain)) == days[1].timestamp()


def element(tag: int, *content: bytes) -> bytes:
    data = b"".join(content)
    assert len(data) < 128
    return bytes([tag, len(data)]) + data


def bare(*, version: bytes = b"", tag: int = 0x17, until: bytes = b"300102120000Z") -> bytes:
    """As much of a certificate as is read."""
    validity = element(0x30, element(0x17, b"200101000000Z"), element(tag, until))
    unread = [element(0x02, b"\x07"), element(0x30), element(0x30)]
    return element(0x30, element(0x30, version, *unread, validity, element(0x30)), b"")


def test_a_certificate_of_the_first_version_has_no_version() -> None:
    with_version = bare(version=element(0xA0, element(0x02, b"\x02")))
    assert not_after(bare()) == not_after(with_version) == NOON.timestamp()


@pytest.mark.parametrize(
    ("written", "year"), [(b"500101000000Z", 1950), (b"680101000000Z", 1968), (b"491231235959Z", 2049)]
)
def test_two_digits_are_the_years_1950_to_2049(written: bytes, year: int) -> None:
    assert datetime.datetime.fromtimestamp(not_after(bare(until=written)), datetime.UTC).year == year


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END"])
def test_of_what_is_no_certificate_nothing_is_said(tmp_path: Path, content: str) -> None:
    file = tmp_path / "file.pem"
    file.write_text(content)
    assert expires_at(str(file)) is None


@given(st.data())
def test_bytes_that_are_no_certificate_are_refused_and_do_no_worse(data: st.DataObject) -> None:
    mutated = bytearray(bare())
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    del mutated[data.draw(st.integers(0, len(mutated))) :]
    try:
        not_after(bytes(mutated))
    except (ValueError, LookupError):
        pass


def test_a_certificate_cut_short_is_refused() -> None:
    for length in range(len(bare())):
        with pytest.raises((ValueError, LookupError)):
            not_after(bare()[:length])
