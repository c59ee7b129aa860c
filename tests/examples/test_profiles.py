"""The shipped and the example profiles: that they load, and are what their files say."""

from pathlib import Path

import pytest

from routing.config.load import load
from routing.core.model import DEFAULT_SUCCESS_RATE, Backend

EXAMPLES = Path(__file__).parents[2] / "examples"
PROVIDERS = ("aws", "azure", "gcp")


@pytest.fixture(scope="module")
def clouds() -> dict[str, Backend]:
    return {backend.id: backend for backend in load(path=str(EXAMPLES / "clouds.toml")).backends}


def regions(clouds: dict[str, Backend], provider: str) -> list[Backend]:
    return [backend for name, backend in clouds.items() if name.startswith(f"{provider}-")]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.name)
def test_every_example_loads_without_a_warning(file: Path) -> None:
    assert load(path=str(file)).warnings == ()


def test_there_are_twenty_regions_of_three_providers(clouds: dict[str, Backend]) -> None:
    found = {provider: regions(clouds, provider) for provider in PROVIDERS}
    assert all(found.values())
    assert sum(map(len, found.values())) >= 20


def test_there_are_ipfs_filecoin_and_low_cost_stores(clouds: dict[str, Backend]) -> None:
    assert {"ipfs", "filecoin"} <= set(clouds)
    assert any("s3-compatible" in backend.tags for backend in clouds.values())


def test_no_two_regions_of_a_provider_are_in_one_place(clouds: dict[str, Backend]) -> None:
    for provider in PROVIDERS:
        places = [(backend.latitude, backend.longitude) for backend in regions(clouds, provider)]
        assert len(set(places)) == len(places)
        assert (None, None) not in places


def test_every_region_has_its_prices_and_a_measured_speed(clouds: dict[str, Backend]) -> None:
    for provider in PROVIDERS:
        for region in regions(clouds, provider):
            assert region.storage_usd_per_gb_month > 0
            assert region.egress_usd_per_gb > 0
            assert region.request_usd_per_1000 > 0
            assert region.throughput_mbps != Backend("neutral").throughput_mbps
            assert region.id == f"{provider}-{region.region}"


def test_the_formula_in_the_head_gives_the_throughput_of_virginia(clouds: dict[str, Backend]) -> None:
    assert clouds["aws-us-east-1"].throughput_mbps == round(4 / (64 / 4329 + 20 / 8388.608))


def test_every_backend_says_what_it_is_by_tags(clouds: dict[str, Backend]) -> None:
    for backend in clouds.values():
        assert len(backend.tags & {"hot", "cold"}) == 1


def test_the_shipped_profiles_are_those_of_the_clouds(clouds: dict[str, Backend]) -> None:
    shipped = {backend.id: backend for backend in load().backends}
    assert shipped["ipfs"] == clouds["ipfs"]
    assert shipped["filecoin"] == clouds["filecoin"]
    for key in ("latitude", "storage_usd_per_gb_month", "egress_usd_per_gb", "latency_ms", "throughput_mbps"):
        assert getattr(shipped["s3"], key) == getattr(clouds["aws-us-east-1"], key)


def test_whatever_is_shipped_is_trusted_more_than_an_unknown_name() -> None:
    assert all(backend.success_rate > DEFAULT_SUCCESS_RATE for backend in load().backends)
