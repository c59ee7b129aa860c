"""Settings: who wins, what is refused and in which words, and that no input does worse."""

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from routing.config.load import CONFIG_VARIABLE, load
from routing.config.options import (
    OPTIONS,
    Option,
    RoutingSettings,
    ServerSettings,
    Settings,
)
from routing.config.profiles import PROFILE
from routing.config.toml import MAX_FILE_BYTES
from routing.core.factors import FACTORS
from routing.core.model import Backend
from routing.errors import ConfigError
from support.doc_tables import options_table, profile_table, section_table

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def loaded(tmp_path: Path, toml: str | bytes, **given: object) -> Settings:
    file = tmp_path / "routing.toml"
    file.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return load(path=str(file), **given)


def refusal(tmp_path: Path, toml: str | bytes, **given: object) -> str:
    """The one line that refuses this file, from its name on."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, toml, **given)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message.removeprefix(f"{tmp_path}/")


def profile(**changes: str) -> str:
    """A valid [[backends]] with some keys as given, spelled in TOML."""
    keys = {"id": '"here"', **changes}
    return "[[backends]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def spelled(value: object) -> str:
    """The value in TOML."""
    match value:
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return str(value)
        case str():
            return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
        case list():
            return f"[{', '.join(map(spelled, value))}]"
        case dict():
            return "{" + ", ".join(f"{spelled(key)} = {spelled(one)}" for key, one in value.items()) + "}"
        case _:
            return str(value)


TOML_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TOML_VALUES = st.recursive(
    st.none().map(lambda _: "1979-05-27T07:32:00Z")
    | (st.booleans() | st.integers() | st.floats() | TOML_TEXT).map(spelled),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]")
        | st.dictionaries(TOML_TEXT.map(spelled), inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=6,
)


# Who wins


def test_without_anything_the_defaults_hold() -> None:
    settings = load()
    assert settings.server == ServerSettings()
    assert settings.routing == RoutingSettings()
    assert settings.warnings == ()


def test_the_contracts_defaults_are_ours() -> None:
    server, routing = ServerSettings(), RoutingSettings()
    assert (server.host, server.port, server.workers, server.log_level) == ("0.0.0.0", 50051, 10, "INFO")
    assert (routing.discover, routing.max_backends, routing.max_content_types) == (True, 1024, 256)
    assert (routing.clock, routing.retention_hours) == ("system", 168)


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = "[server]\nport = 2\nworkers = 2\nhost = '2.2.2.2'"
    environment = {"ROUTING_WORKERS": "3", "ROUTING_HOST": "3.3.3.3"}
    server = loaded(tmp_path, file, environment=environment, flags={"host": "4.4.4.4"}).server
    assert (server.host, server.workers, server.port, server.log_level) == ("4.4.4.4", 3, 2, "INFO")


OTHER_VALUES = {
    "host": "127.0.0.1",
    "port": 7,
    "workers": 7,
    "use_ssl": True,
    "ssl_cert": "c.pem",
    "ssl_key": "k.pem",
    "ssl_client_ca": "ca.pem",
    "ssl_client_auth": "optional",
    "auth_file": "auth.toml",
    "rate_limit": 7.5,
    "rate_burst": 7,
    "reload_seconds": 0.5,
    "log_level": "ERROR",
    "log_format": "json",
    "grace_period_seconds": 0.5,
    "event_loop": "uvloop",
    "fast_path": False,
    "state": "sqlite:///state.db",
    "durability": "interval",
    "durability_interval_seconds": 0.5,
    "discover": False,
    "max_backends": 7,
    "max_content_types": 7,
    "clock": "request",
    "max_pending": 7,
    "retention_hours": 7,
    "max_cost_usd": 0.5,
    "max_ms": 1500.0,
    "min_success": 0.95,
    **{one.key: 2 * one.default for one in OPTIONS if one.section == "suspension"},
    # Of [http2], where a little less than the default is always allowed.
    **{
        one.key: one.default - type(one.default)(0.125 * one.default)
        for one in OPTIONS
        if one.section == "http2"
    },
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_every_option_is_read_from_file_environment_and_flag(option: Option, tmp_path: Path) -> None:
    value = OTHER_VALUES[option.key]
    assert value != option.default
    tls = {"use_ssl": True, "ssl_cert": "c.pem", "ssl_key": "k.pem", "ssl_client_ca": "ca.pem"}
    rest = {key: given for key, given in tls.items() if "ssl" in option.key and key != option.key}
    for found in (
        loaded(tmp_path, f"{option.toml} = {spelled(value)}", flags=rest),
        load(environment={option.variable: str(value)}, flags=rest),
        load(flags={option.key: str(value), **rest}),
        load(flags={option.key: value, **rest}),
    ):
        assert getattr(getattr(found, option.section), option.key) == value


def test_a_flag_that_was_not_given_leaves_the_rest_in_force() -> None:
    assert load(environment={"ROUTING_PORT": "7"}, flags={"port": None}).server.port == 7


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(environment={"ROUTING_PORT": "", CONFIG_VARIABLE: ""}).server.port == 50051


@pytest.mark.parametrize("text", ["true", "1", "YES", "on", "false", "0", "No", "off"])
def test_a_switch_in_the_environment_has_its_usual_spellings(text: str) -> None:
    found = load(environment={"ROUTING_DISCOVER": text}).routing.discover
    assert found is (text in ("true", "1", "YES", "on"))


def test_the_environment_names_the_file_and_the_flag_names_another(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text("server.port = 1")
    (tmp_path / "two.toml").write_text("server.port = 2")
    environment = {CONFIG_VARIABLE: str(tmp_path / "one.toml")}
    assert load(environment=environment).server.port == 1
    assert load(environment=environment, path=str(tmp_path / "two.toml")).server.port == 2


def test_what_is_overridden_is_checked_all_the_same(tmp_path: Path) -> None:
    assert "server.port" in refusal(tmp_path, "server.port = -1", flags={"port": 5})


# Backends


def test_a_file_without_backends_keeps_the_three_defaults(tmp_path: Path) -> None:
    for toml in ("", "[routing]\ndiscover = false", "backends = []"):
        assert {backend.id for backend in loaded(tmp_path, toml).backends} == {"ipfs", "filecoin", "s3"}


def test_a_file_with_backends_replaces_the_defaults(tmp_path: Path) -> None:
    assert [backend.id for backend in loaded(tmp_path, profile()).backends] == ["here"]


def test_what_a_profile_leaves_out_keeps_the_models_default(tmp_path: Path) -> None:
    assert loaded(tmp_path, profile()).backends == (Backend(id="here"),)


def test_every_key_of_a_profile_is_read(tmp_path: Path) -> None:
    toml = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)[-1]
    assert loaded(tmp_path, toml).backends == (
        Backend(
            id="s3-virginia",
            enabled=True,
            region="us-east-1",
            latitude=38.95,
            longitude=-77.45,
            storage_usd_per_gb_month=0.023,
            egress_usd_per_gb=0.09,
            request_usd_per_1000=0.005,
            latency_ms=60.0,
            throughput_mbps=230.0,
            success_rate=0.999,
            max_object_bytes=5497558138880,
            max_inflight=1000,
            tags=frozenset({"us", "hot"}),
            content_affinity={"image/png": 1.0, "image/*": 0.9, "*/*": 0.6},
        ),
    )


def test_a_profile_may_say_all_that_the_model_holds() -> None:
    assert set(PROFILE) == {one.name for one in fields(Backend)} - {"discovered"}


def test_every_backend_may_be_disabled(tmp_path: Path) -> None:
    assert not loaded(tmp_path, profile(enabled="false")).backends[0].enabled


def test_rates_and_affinities_of_exactly_0_and_1_are_allowed(tmp_path: Path) -> None:
    for rate in ("0", "0.0", "1", "1.0"):
        toml = profile(success_rate=rate, content_affinity=f"{{ '*/*' = {rate} }}")
        assert loaded(tmp_path, toml).backends[0].success_rate == float(rate)


def test_a_mime_pattern_has_no_case(tmp_path: Path) -> None:
    toml = profile(content_affinity="{ 'Image/PNG' = 1 }")
    assert loaded(tmp_path, toml).backends[0].content_affinity == {"image/png": 1.0}


def test_weights_are_handed_on_as_written(tmp_path: Path) -> None:
    weights = loaded(tmp_path, "[routing.weights]\ncost = 3\nload = 0.0").routing.weights
    assert weights == {"cost": 3.0, "load": 0.0}


# Refusals: file, key, what was expected, what came

ID = "1 to 256 bytes of printable text"
MONEY = "a number from 0 to 1,000,000,000"
SCORE = "a number from 0 to 1"
REFUSALS = [
    ("[sever]", "sever: unknown key; did you mean server?"),
    ("server = 3", "server: expected a table, got 3"),
    ("routing = []", "routing: expected a table, got []"),
    ("[server]\nprot = 1", "server.prot: unknown key; did you mean port?"),
    (
        "[routing]\nzzz = 1",
        "routing.zzz: unknown key; expected one of discover, max_backends, max_content_types, clock, "
        "max_pending, retention_hours, max_cost_usd, max_ms, min_success, weights",
    ),
    ('"a\\nb" = 1', "'a\\nb': unknown key; expected one of server, routing, suspension, http2, backends"),
    ("[server]\nport = 65536", "server.port: expected a whole number from 0 to 65,535, got 65536"),
    ("[server]\nport = true", "server.port: expected a whole number from 0 to 65,535, got true"),
    ("[server]\nport = 80.0", "server.port: expected a whole number from 0 to 65,535, got 80.0"),
    ("[server]\nworkers = 0", "server.workers: expected a whole number from 1 to 1,024, got 0"),
    ("[server]\nhost = ''", "server.host: expected 1 to 255 bytes of printable text, got ''"),
    ("[server]\nuse_ssl = 'yes'", "server.use_ssl: expected true or false, got 'yes'"),
    (
        "[server]\nlog_level = 'info'",
        "server.log_level: expected one of DEBUG, INFO, WARNING, ERROR, got 'info'",
    ),
    ("[server]\nlog_format = {}", "server.log_format: expected one of logfmt, json, got {}"),
    (
        "[server]\ngrace_period_seconds = -1",
        "server.grace_period_seconds: expected a number from 0 to 3,600, got -1",
    ),
    ("[routing]\nclock = 'sundial'", "routing.clock: expected one of system, request, got 'sundial'"),
    (
        "[routing]\nretention_hours = 0",
        "routing.retention_hours: expected a whole number from 1 to 8,760, got 0",
    ),
    ("[routing]\nweights = 1", "routing.weights: expected a table, got 1"),
    (
        "[routing.weights]\nperformence = 1",
        "routing.weights.performence: unknown key; did you mean performance?",
    ),
    (
        "[routing.weights]\ncost = -0.1",
        "routing.weights.cost: expected a number from 0 to 1,000,000, got -0.1",
    ),
    ("[routing.weights]\ncost = nan", "routing.weights.cost: expected a number from 0 to 1,000,000, got nan"),
    (
        "[routing.weights]\n" + "".join(f"{name} = 0\n" for name in FACTORS),
        "routing.weights: expected at least one weight above 0",
    ),
    ("backends = 1", "backends: expected [[backends]] tables, got 1"),
    ("backends = [1]", "backends[0]: expected a table, got 1"),
    ("[[backends]]\nenabled = true", f"backends[0].id: expected {ID}, got nothing"),
    (profile(id="''"), f"backends[0].id (''): expected {ID}, got ''"),
    (profile(id="3"), f"backends[0].id: expected {ID}, got 3"),
    (profile(id="'" + "ä" * 129 + "'"), "(131 characters)"),
    (profile() + profile(), "backends[1].id: expected a name of its own, got 'here' like backends[0]"),
    (
        profile() + profile(id="'b'", latency="1"),
        "backends[1].latency ('b'): unknown key; did you mean latency_ms?",
    ),
    (profile(latency_ms="-5"), f"backends[0].latency_ms ('here'): expected {MONEY}, got -5"),
    (profile(latency_ms="inf"), f"backends[0].latency_ms ('here'): expected {MONEY}, got inf"),
    (
        profile(egress_usd_per_gb="-0.01"),
        f"backends[0].egress_usd_per_gb ('here'): expected {MONEY}, got -0.01",
    ),
    (
        profile(storage_usd_per_gb_month="nan"),
        f"backends[0].storage_usd_per_gb_month ('here'): expected {MONEY}, got nan",
    ),
    (
        profile(request_usd_per_1000="'free'"),
        f"backends[0].request_usd_per_1000 ('here'): expected {MONEY}, got 'free'",
    ),
    (
        profile(throughput_mbps="0"),
        "backends[0].throughput_mbps ('here'): expected a number from 0.001 to 1,000,000,000, got 0",
    ),
    (profile(success_rate="1.01"), f"backends[0].success_rate ('here'): expected {SCORE}, got 1.01"),
    (profile(success_rate="-0.01"), f"backends[0].success_rate ('here'): expected {SCORE}, got -0.01"),
    (
        profile(latitude="90.1", longitude="0"),
        "backends[0].latitude ('here'): expected a number from -90 to 90",
    ),
    (
        profile(latitude="0", longitude="-180.1"),
        "backends[0].longitude ('here'): expected a number from -180",
    ),
    (profile(latitude="1"), "backends[0].longitude ('here'): expected a number, because latitude is given"),
    (profile(longitude="1"), "backends[0].latitude ('here'): expected a number, because longitude is given"),
    (
        profile(max_object_bytes="0"),
        "backends[0].max_object_bytes ('here'): expected a whole number from 1 to",
    ),
    (profile(max_inflight="1.5"), "backends[0].max_inflight ('here'): expected a whole number from 1 to"),
    (
        profile(max_object_bytes="0x" + "f" * 5000),
        "backends[0].max_object_bytes ('here'): expected a whole number from 1 to 9,223,372,036,854,775,807, "
        "got a whole number of 20,000 bits",
    ),
    (
        profile(tags="'hot'"),
        "backends[0].tags ('here'): expected a list of at most 64 names of 1 to 256 bytes, got 'hot'",
    ),
    (profile(tags="['hot', 1]"), "backends[0].tags ('here'): expected a list of at most 64 names"),
    (profile(tags="['']"), "backends[0].tags ('here'): expected a list of at most 64 names"),
    (
        profile(content_affinity="1"),
        "backends[0].content_affinity ('here'): expected a table of at most 256 MIME",
    ),
    (
        profile(content_affinity="{ 'image' = 1 }"),
        "backends[0].content_affinity ('here'): "
        """expected a MIME pattern: "type/subtype", "type/*" or "*/*", got 'image'""",
    ),
    (profile(content_affinity="{ '*/png' = 1 }"), "got '*/png'"),
    (
        profile(content_affinity="{ 'image/*' = 1, 'Image/*' = 0 }"),
        "expected each MIME pattern once, whatever its case, got 'Image/*'",
    ),
    (
        profile(content_affinity="{ 'image/*' = 2 }"),
        f"""backends[0].content_affinity."image/*" ('here'): expected {SCORE}, got 2""",
    ),
    (
        "[server\nport = 1",
        "expected TOML: Expected ']' at the end of a table declaration (at line 1, column 8)",
    ),
    ("[server]\nport = 1\nport =\n", "expected TOML: Invalid value (at line 3, column 7)"),
    ("a = " + "1" * 5000, "expected TOML: "),
    ("a = " + "[" * 100_000, "expected TOML, got arrays or tables nested too deeply"),
    (b"[server]\n# \xff", "line 2: expected UTF-8 text"),
]


@pytest.mark.parametrize(("toml", "expected"), REFUSALS)
def test_a_bad_file_is_refused_in_one_line(toml: str | bytes, expected: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, toml)
    assert message.startswith("routing.toml: ")
    assert expected in message


@pytest.mark.parametrize("missing", ["", "nowhere.toml", "a\0b", "a\nb"])
def test_a_file_that_cannot_be_opened_is_one_line(missing: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n\0]*: expected a file that can be read: [^\n\0]*$"):
        load(path=missing)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file that can be read: Is a directory"):
        load(path=str(tmp_path))


def test_a_file_past_the_limit_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"#" * (MAX_FILE_BYTES + 1)) == "routing.toml: expected at most 16,777,216 bytes"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert loaded(tmp_path, b"\xef\xbb\xbfserver.port = 1").server.port == 1


@pytest.mark.parametrize("text", ["x", "-1", "65536", "1.5", "tcp://10.0.0.1:50051", "9" * 5000])
def test_a_bad_variable_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment={"ROUTING_PORT": text})
    expected = "environment: ROUTING_PORT: expected a whole number from 0 to 65,535, got "
    assert caught.value.message.startswith(expected)


def test_a_bad_flag_is_refused_as_it_was_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags={"log_level": "LOUD"})
    expected = "command line: --log-level: expected one of DEBUG, INFO, WARNING, ERROR, got 'LOUD'"
    assert caught.value.message == expected


def test_a_flag_that_is_no_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="prot: unknown key; did you mean port"):
        load(flags={"prot": 1})


def test_more_backends_than_the_limit_are_refused_where_the_limit_stands(tmp_path: Path) -> None:
    three = "".join(profile(id=f"'{name}'") for name in "abc")
    assert len(loaded(tmp_path, f"routing.max_backends = 3\n{three}").backends) == 3
    expected = "routing.max_backends: expected room for 3 backends, got 2"
    assert refusal(tmp_path, f"routing.max_backends = 2\n{three}") == f"routing.toml: {expected}"
    with pytest.raises(ConfigError, match=r"^environment: ROUTING_MAX_BACKENDS: expected room for 3"):
        load(environment={"ROUTING_MAX_BACKENDS": "2"})


def test_more_backends_than_the_default_limit_are_refused(tmp_path: Path) -> None:
    many = "".join(profile(id=f"'{number}'") for number in range(1025))
    assert "routing.max_backends: expected room for 1,025 backends, got 1,024" in refusal(tmp_path, many)


# TLS


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"use_ssl": True}, "--use-ssl: expected ssl_cert as well"),
        ({"use_ssl": True, "ssl_cert": "c"}, "--use-ssl: expected ssl_key as well"),
        ({"use_ssl": True, "ssl_key": "k"}, "--use-ssl: expected ssl_cert as well"),
        (
            {"ssl_cert": "c"},
            "--ssl-cert: expected ssl_key as well (--ssl-key, server.ssl_key or ROUTING_SSL_KEY)",
        ),
        ({"ssl_key": "k"}, "--ssl-key: expected ssl_cert as well"),
        # Who asks clients for certificates must not find that nobody does.
        ({"ssl_client_ca": "a"}, "--ssl-client-ca: expected use_ssl as well"),
        (
            {"ssl_client_ca": "a", "use_ssl": False, "ssl_cert": "c", "ssl_key": "k"},
            "--ssl-client-ca: expected use_ssl as well",
        ),
        ({"ssl_client_auth": "required"}, "--ssl-client-auth: expected ssl_client_ca as well"),
    ],
)
def test_a_certificate_its_key_and_tls_come_together(flags: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags=flags)
    assert caught.value.message.startswith(f"command line: {expected}")


def test_tls_from_three_places_is_whole(tmp_path: Path) -> None:
    environment = {"ROUTING_SSL_KEY": "k"}
    server = loaded(
        tmp_path, "server.ssl_cert = 'c'", environment=environment, flags={"use_ssl": True}
    ).server
    assert (server.use_ssl, server.ssl_cert, server.ssl_key) == (True, "c", "k")


def test_certificates_without_tls_are_warned_about() -> None:
    (warning,) = load(flags={"ssl_cert": "c", "ssl_key": "k"}).warnings
    assert "use_ssl is false" in warning


# Variables of others


def test_a_variable_of_other_software_is_left_alone() -> None:
    assert load(environment={"ROUTING_TABLE_SIZE": "x", "PATH": "y", "ROUTING_": "z"}) == load()


def test_a_variable_that_is_nearly_ours_is_warned_about() -> None:
    (warning,) = load(environment={"ROUTING_PROT": "50052"}).warnings
    assert warning == "ROUTING_PROT is not a setting and is ignored; did you mean ROUTING_PORT?"


# No input does worse


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


def complaint(**given: object) -> str:
    """What the settings are refused with, if they are."""
    try:
        load(**given)
    except ConfigError as error:
        return error.message
    return ""


def answers(scratch: Path, toml: str | bytes) -> bool:
    """Whether the file gives either settings or one printable line."""
    file = scratch / "routing.toml"
    file.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return complaint(path=str(file)).isprintable()


@given(option=st.sampled_from(OPTIONS), value=TOML_VALUES)
@settings(max_examples=150)
def test_any_value_of_an_option_is_read_or_refused(scratch: Path, option: Option, value: str) -> None:
    assert answers(scratch, f"[{option.section}]\n{option.key} = {value}\n")


@given(key=st.sampled_from(sorted(PROFILE)) | TOML_TEXT.map(spelled), value=TOML_VALUES)
@settings(max_examples=200)
def test_any_value_in_a_profile_is_read_or_refused(scratch: Path, key: str, value: str) -> None:
    assert answers(scratch, f"[[backends]]\nid = 'a'\n[[backends]]\n{key} = {value}\n")


@given(
    key=st.sampled_from(["server", "routing", "routing.weights", "routing.weights.cost", "backends"]),
    value=TOML_VALUES,
)
def test_any_value_of_a_table_is_read_or_refused(scratch: Path, key: str, value: str) -> None:
    assert answers(scratch, f"{key} = {value}\n")


@given(content=st.binary(max_size=40) | TOML_TEXT.map(str.encode))
@example(content=b"\xef\xbb\xbf")
@example(content=b"\0")
def test_any_file_is_read_or_refused(scratch: Path, content: bytes) -> None:
    assert answers(scratch, content)


@given(
    option=st.sampled_from(OPTIONS), text=st.text(max_size=20) | st.integers().map(str) | st.floats().map(str)
)
@settings(max_examples=150)
def test_any_text_of_a_variable_or_flag_is_read_or_refused(option: Option, text: str) -> None:
    assert complaint(environment={option.variable: text}).isprintable()
    assert complaint(flags={option.key: text}).isprintable()


# The table of options, and the page that shows it


def test_no_two_options_share_a_key() -> None:
    assert len({option.key for option in OPTIONS}) == len(OPTIONS)
    assert "config" not in {option.key for option in OPTIONS}


def test_every_default_is_valid() -> None:
    for option in OPTIONS:
        assert option.default is None or option.validator.read(option.default) == option.default


def test_the_contracts_flags_have_their_names() -> None:
    flags = {option.flag for option in OPTIONS}
    contract = {"--host", "--port", "--workers", "--use-ssl", "--ssl-cert", "--ssl-key", "--log-level"}
    assert contract <= flags


def weights_table() -> str:
    rows = [f"| `{factor.name}` | {factor.weight} | {factor.help} |" for factor in FACTORS.values()]
    return "\n".join(["| factor | default | what counts |", "| --- | --- | --- |", *rows])


@pytest.mark.parametrize(
    ("marker", "table"),
    [
        ("options", options_table),
        ("suspension", lambda: section_table("suspension")),
        ("http2", lambda: section_table("http2")),
        ("profile", profile_table),
        ("weights", weights_table),
    ],
)
def test_the_page_shows_the_tables_as_they_are(marker: str, table) -> None:
    page = DOCS.read_text()
    shown = page.split(f"<!-- {marker} -->\n")[1].split(f"\n<!-- /{marker} -->")[0]
    assert shown == table()


@pytest.mark.parametrize("toml", re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL))
def test_every_example_on_the_page_loads(toml: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, toml).warnings == ()


TLS = {"use_ssl": True, "ssl_cert": "c", "ssl_key": "k", "ssl_client_ca": "a"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"rate_burst": 5}, "calls are not limited"),
        ({**TLS, "ssl_client_auth": "optional"}, "clients need no certificate"),
    ],
)
def test_a_setting_that_does_nothing_is_told(flags: dict[str, object], words: str) -> None:
    (warning,) = load(flags=flags).warnings
    assert words in warning


@pytest.mark.parametrize(
    "flags",
    [{"rate_burst": 5, "rate_limit": 1}, {**TLS, "ssl_client_auth": "optional", "auth_file": "a"}, TLS],
)
def test_settings_that_belong_together_are_no_doubt(flags: dict[str, object]) -> None:
    assert load(flags=flags).warnings == ()
