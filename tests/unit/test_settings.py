"""Settings: where they come from, and what cannot be right."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from limetask import BrokerUrlError, ConfigurationError, Settings, StoreUrlError, UsageError, configure
from limetask.settings import (
    current_settings,
    default_store_path,
    environment_variable,
    settings_table,
    unknown_variables,
)

MAX_NAMESPACE_BYTES = 100
VALUES: dict[str, tuple[str, Any]] = {
    "broker_url": ("amqp://user:password@host/vhost", "amqp://user:password@host/vhost"),
    "store_url": ("sqlite:////var/status.db", "sqlite:////var/status.db"),
    "broker_ca": ("/etc/shop/ca.pem", "/etc/shop/ca.pem"),
    "broker_certificate": ("/etc/shop/client.pem", "/etc/shop/client.pem"),
    "broker_key": ("/etc/shop/client.key", "/etc/shop/client.key"),
    "signing_keys": ("k" * 32, "k" * 32),
    "namespace": ("shop.tasks", "shop.tasks"),
    "application_factory": ("shop.platform:make", "shop.platform:make"),
    "send_timeout": ("2.5", 2.5),
    "connect_timeout": ("1", 1.0),
    "heartbeat": ("60", 60),
    "worker_timeout": ("30", 30.0),
    "consumer_timeout": ("60", 60.0),
    "max_deliveries": ("3", 3),
    "retention_days": ("0.5", 0.5),
    "max_arguments_bytes": ("1000", 1000),
    "max_result_bytes": ("2000", 2000),
}
NAMES = [setting.name for setting in fields(Settings)]
NUMBERS = [name for name in NAMES if not isinstance(getattr(Settings(), name), str)]
TIMES = ["send_timeout", "connect_timeout", "retention_days"]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_variable(name: str) -> None:
    """Each setting is read from its `LIMETASK_*` variable, with the right type, and changes no other."""
    text, value = VALUES[name]
    made = Settings.from_environment({f"LIMETASK_{name.upper()}": text})
    assert made == Settings(**{name: value})
    assert type(getattr(made, name)) is type(value)
    assert made != Settings()


@pytest.mark.parametrize("environment", [{}, {f"LIMETASK_{name.upper()}": "" for name in NAMES}, {"BROKER_URL": "x"}])
def test_nothing_set_gives_the_defaults(environment: dict[str, str]) -> None:
    """Without variables, or with empty ones, everything has its default."""
    assert Settings.from_environment(environment) == Settings()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, True, b"text", Path("/etc/file"), [1], "12"])
def test_a_setting_has_its_type(name: str, value: Any) -> None:
    """A value of another type is refused with the setting's name, and is not an error of Python's."""
    if isinstance(value, str) and name not in NUMBERS:
        return
    with pytest.raises(
        ConfigurationError, match=rf"{name} \(LIMETASK_{name.upper()}\) must be (text|a (whole )?number)"
    ):
        Settings(**{name: value})


WHOLE_NUMBERS = ["heartbeat", "max_deliveries", "max_arguments_bytes", "max_result_bytes"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [10**400, 10**5000, -(10**5000)], ids=["400", "5000", "-5000"])
def test_a_number_of_any_size_is_refused_in_few_words(name: str, value: Any) -> None:
    """Python itself refuses to write some of them."""
    with pytest.raises(ConfigurationError, match=rf"LIMETASK_{name.upper()}\) must be (more|at most)") as caught:
        Settings(**{name: value})
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["often", "30s", "1,5", "0x10", "½", "9" * 5000 + "x"], ids=lambda text: text[:6])
def test_a_variable_that_is_no_number_is_told_with_what_is_meant(name: str, text: str) -> None:
    """A whole number is not asked for as any number."""
    meant = r"a whole number$" if name in WHOLE_NUMBERS else r"a number such as 2\.5$"
    with pytest.raises(ConfigurationError, match=f"LIMETASK_{name.upper()} is '.*: it must be {meant}") as caught:
        Settings.from_environment({f"LIMETASK_{name.upper()}": text})
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
@pytest.mark.parametrize("text", ["1.5", "5.0", "1e3", "nan", "inf"])
def test_a_variable_with_a_fraction_is_no_whole_number(name: str, text: str) -> None:
    """It is a number, so to ask for one would not help."""
    with pytest.raises(ConfigurationError, match=r"it must be a whole number$"):
        Settings.from_environment({f"LIMETASK_{name.upper()}": text})


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
def test_a_count_has_no_fraction(name: str) -> None:
    """A float is refused where a whole number is meant; a whole number is a time as well."""
    fraction: Any = 1.5
    with pytest.raises(ConfigurationError, match="must be a whole number"):
        Settings(**{name: fraction})
    assert Settings(send_timeout=5).send_timeout == 5.0


@pytest.mark.parametrize(
    "name", ["broker_url", "store_url", "broker_ca", "broker_certificate", "broker_key", "application_factory"]
)
@pytest.mark.parametrize(
    ("form", "says"),
    [
        (" {}", "a space or a line break"),
        ("{}\n", "a space or a line break"),
        ("{}\r\n", "a space or a line break"),
        ("'{}'", "quotation marks"),
        ('"{}"', "quotation marks"),
        ("/a\nb{}", "a line break"),
        ("/a\x00b{}", "control character"),
    ],
)
def test_stray_characters_are_told(name: str, form: str, says: str) -> None:
    """With them another file, virtual host or password would be meant. A URL's error is the one of other wrong URLs."""
    error = {"broker_url": BrokerUrlError, "store_url": StoreUrlError}.get(name, ConfigurationError)
    with pytest.raises(error, match=rf"LIMETASK_{name.upper()}\) cannot be right: .*{says}") as caught:
        Settings.from_environment({f"LIMETASK_{name.upper()}": form.format(VALUES[name][0])})
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("value", [None, {}, "amqp://broker", {"send_timeout": 5}])
def test_only_settings_can_be_configured(value: Any) -> None:
    """Anything else is refused at once, and not at the next send."""
    with pytest.raises(UsageError, match=r"configure takes Settings, .* not "):
        configure(value)


class TestUnknownVariables:
    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("LIMETASK_BROKER_URI", "LIMETASK_BROKER_URL"),
            ("LIMETASK_BROKERURL", "LIMETASK_BROKER_URL"),
            ("limetask_broker_url", "LIMETASK_BROKER_URL"),
            ("LIME_TASK_BROKER_URL", "LIMETASK_BROKER_URL"),
            ("LIMETASKS_STORE_URL", "LIMETASK_STORE_URL"),
            ("LIMETASK_CONNECTION_TIMEOUT", "LIMETASK_CONNECT_TIMEOUT"),
            ("LIMETASK_SIGNING_KEY", "LIMETASK_SIGNING_KEYS"),
        ],
    )
    def test_a_misspelt_one_is_told_with_the_right_one(self, variable: str, meant: str) -> None:
        """The sentence names both."""
        [told] = unknown_variables({variable: "x", "LIMETASK_NAMESPACE": "shop"})
        assert told.startswith(f"the environment variable {variable} is not a setting")
        assert told.endswith(f"did you mean {meant}?")

    def test_one_that_is_nothing_alike_gets_no_guess(self) -> None:
        """It is told, with where all settings are."""
        [told] = unknown_variables({"LIMETASK_CONCURRENCY": "4"})
        assert told.endswith("limetask's docs/settings.md lists all")

    @pytest.mark.parametrize(
        "variable",
        [
            "LIMETASK_TEST_TOKENS",
            "LIMETASK_SERVICE_HOST",
            "LIMETASK_WORKER_SERVICE_PORT",
            "LIMETASK_PORT_5672_TCP_ADDR",
            "LIMETASK_PORT",
            "BROKER_URI",
            "MY_LIMETASK_BROKER",
            "LIMETASK",
        ],
    )
    def test_others_are_not_told(self, variable: str) -> None:
        """Those of limetask's own tests, those that Kubernetes sets for a service called limetask, and all the rest."""
        assert unknown_variables({variable: "x"}) == []

    def test_they_are_logged_when_the_environment_is_read(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Once, as a warning."""
        monkeypatch.setenv("LIMETASK_BROKER_URI", "amqp://broker")
        current_settings()
        current_settings()
        assert [
            (record.levelname, "did you mean LIMETASK_BROKER_URL?" in record.message) for record in caplog.records
        ] == [("WARNING", True)]


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another environment it is the process's, as it is at that moment."""
    monkeypatch.setenv("LIMETASK_NAMESPACE", "shop")
    assert Settings.from_environment().namespace == "shop"


def test_the_defaults_need_no_configuration() -> None:
    """With nothing set limetask uses the RabbitMQ on this machine and limits that the documentation names."""
    made = Settings()
    assert (made.broker_url, made.namespace, made.application_factory) == ("amqp://", "limetask", "")
    assert (made.max_arguments_bytes, made.max_result_bytes) == (1024 * 1024, 1024 * 1024)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["ten", "1,5", "1 MiB", "0x10", "--1"])
def test_what_is_no_number_is_refused(name: str, text: str) -> None:
    """A variable that should be a number and is not is refused; the message names variable and value."""
    with pytest.raises(ConfigurationError, match=f"LIMETASK_{name.upper()} is '{text}'.*number"):
        Settings.from_environment({f"LIMETASK_{name.upper()}": text})


@pytest.mark.parametrize("name", ["heartbeat", "max_arguments_bytes", "max_result_bytes"])
def test_a_count_is_a_whole_number(name: str) -> None:
    """What counts bytes or whole seconds takes no fraction."""
    with pytest.raises(ConfigurationError, match=f"LIMETASK_{name.upper()} is '1.5'"):
        Settings.from_environment({f"LIMETASK_{name.upper()}": "1.5"})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1])
def test_a_number_is_more_than_0(name: str, value: int) -> None:
    """Zero and less are refused, given directly or by the environment; the message names setting and value."""
    given: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"{name}.*more than 0, not {value}"):
        Settings(**given)
    with pytest.raises(ConfigurationError, match="more than 0"):
        Settings.from_environment({f"LIMETASK_{name.upper()}": str(value)})


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", ["nan", "inf", "1e300"])
def test_a_time_is_a_time(name: str, value: str) -> None:
    """A time that no clock can wait for, or no calendar go back, is refused: every call has a deadline."""
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_environment({f"LIMETASK_{name.upper()}": value})


def test_a_retention_longer_than_the_calendar_is_refused() -> None:
    """As many days as there are not since the year 1 cannot be the retention."""
    with pytest.raises(ConfigurationError, match="retention_days"):
        Settings(retention_days=1_000_000)


def test_a_heartbeat_fits_into_the_protocol() -> None:
    """AMQP has 16 bits for the seconds of a heartbeat: more is refused."""
    assert Settings(heartbeat=65_535).heartbeat == 65_535
    with pytest.raises(ConfigurationError, match="heartbeat"):
        Settings(heartbeat=65_536)


@pytest.mark.parametrize(
    "namespace", ["shop", "shop.eu", "Größe-2_x", "x" * MAX_NAMESPACE_BYTES, "ä" * (MAX_NAMESPACE_BYTES // 2)]
)
def test_a_namespace_is_dotted_words(namespace: str) -> None:
    """One word, or several joined by dots, up to 100 bytes, is a namespace."""
    assert Settings(namespace=namespace).namespace == namespace


@pytest.mark.parametrize("namespace", ["", ".", "shop.", ".shop", "a..b", "a b", " shop", "shop\n", "a.*", "#", "a#b"])
def test_another_text_is_no_namespace(namespace: str) -> None:
    """Empty words, spaces and wildcards are refused; the message shows the namespace and says how it must be."""
    with pytest.raises(ConfigurationError, match=r"must be words joined by dots") as caught:
        Settings(namespace=namespace)
    assert repr(namespace) in str(caught.value)


@pytest.mark.parametrize("namespace", ["x" * (MAX_NAMESPACE_BYTES + 1), "ä" * (MAX_NAMESPACE_BYTES // 2 + 1)])
def test_a_namespace_leaves_room_for_names(namespace: str) -> None:
    """A namespace of more than 100 bytes is refused."""
    with pytest.raises(ConfigurationError, match=f"longer than {MAX_NAMESPACE_BYTES} bytes"):
        Settings(namespace=namespace)


def test_a_namespace_is_valid_unicode() -> None:
    """A namespace that cannot be encoded, as a variable with broken bytes gives it, is refused."""
    with pytest.raises(ConfigurationError, match="namespace"):
        Settings.from_environment({"LIMETASK_NAMESPACE": "shop\udcff"})


def test_settings_are_named_and_cannot_be_changed() -> None:
    """Settings take no positional arguments, no unknown names, and no changes."""
    with pytest.raises(TypeError):
        Settings("amqp://host")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Settings(brokerurl="amqp://host")  # type: ignore[call-arg]
    with pytest.raises(FrozenInstanceError):
        Settings().namespace = "other"  # type: ignore[misc]


def test_the_environment_is_read_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """`current_settings` reads the environment when it is first called, and stays with what it has read."""
    monkeypatch.setenv("LIMETASK_NAMESPACE", "first")
    first = current_settings()
    monkeypatch.setenv("LIMETASK_NAMESPACE", "second")
    assert current_settings() is first
    assert first.namespace == "first"


def test_configured_settings_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed to `configure` is used instead of the environment, and may be replaced."""
    monkeypatch.setenv("LIMETASK_NAMESPACE", "environment")
    for namespace in ("one", "two"):
        mine = Settings(namespace=namespace)
        configure(mine)
        assert current_settings() is mine


def test_a_wrong_environment_is_told_at_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong variable is an error each time until it is mended."""
    monkeypatch.setenv("LIMETASK_HEARTBEAT", "soon")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="LIMETASK_HEARTBEAT"):
            current_settings()
    monkeypatch.setenv("LIMETASK_HEARTBEAT", "60")
    assert current_settings().heartbeat == 60


def test_the_table_lists_every_setting() -> None:
    """The table for the documentation has one row a setting: variable, default, meaning."""
    head, rule, *rows = settings_table().splitlines()
    assert (head, rule) == ("| variable | default | meaning |", "|---|---|---|")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [variable for variable, _, _ in cells] == [
        f"`{environment_variable(setting)}`" for setting in fields(Settings)
    ]
    for (_, default, meaning), setting in zip(cells, fields(Settings), strict=True):
        assert default == (f"`{setting.default}`" if setting.default != "" else "empty")
        assert meaning


class TestStore:
    def test_a_set_store_is_used(self) -> None:
        """A store that is set is used as it is."""
        assert Settings(store_url="postgresql://host/db").resolved_store_url == "postgresql://host/db"

    def test_the_default_store_is_a_file_of_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a store it is an SQLite file in the folder that XDG_DATA_HOME names."""
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        assert Settings().resolved_store_url == f"sqlite:///{tmp_path}/limetask/status.db"

    @pytest.mark.parametrize(
        ("platform", "variable", "folder"),
        [
            ("linux", "XDG_DATA_HOME", ".local/share"),
            ("darwin", None, "Library/Application Support"),
            ("win32", "LOCALAPPDATA", "AppData/Local"),
        ],
    )
    def test_the_default_folder_is_the_platforms(
        self, platform: str, variable: str | None, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each platform has its own folder for the data of a user, which need not be set."""
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        if variable is not None:
            monkeypatch.delenv(variable, raising=False)
        assert default_store_path() == tmp_path / folder / "limetask" / "status.db"

    def test_asking_for_the_default_store_creates_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name of the default file is told without making it or its folder."""
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert Settings().resolved_store_url
        assert not (tmp_path / "data").exists()
