"""Settings of the server: from flags, the environment and a file."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from conpet.config import StrictModel
from conpet.config.settings import switch
from conpet.config.unique_keys import load_yaml
from conpet.errors import ConfigError, reason_of
from conpet.serve.keys import KEYS, Role
from conpet.watching.report import REFERENCE, WINDOW, WatchOptions
from conpet.watching.webhook import check_url

PREFIX = "CONPET_SERVE_"
"""Prefix of the environment variables: `CONPET_SERVE_PORT` sets `port`."""
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable, read by prometheus_client, that names the folder in which processes share metrics."""
CONFIG = f"{PREFIX}CONFIG"
"""Environment variable that names the settings file."""

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class ServeSettings(StrictModel):
    """Settings of `conpet serve`.

    Attributes:
        workspace: Folder of the workspace.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        workers: Number of processes that answer.
        backbone: Folder of the backbone, if it was moved.
        device: Torch device, instead of the workspace's.
        threads: Threads of each process for computing; by default the cores divided by the processes.
        insecure: Whether to serve without keys on an address that is not loopback.
        keys_file: File of the API keys; by default `keys.sqlite` in the workspace's folder.
        allowed_hosts: Host names that requests may name. By default only loopback names if the server listens on
            loopback, otherwise any.
        rate_limit: Requests a second for each key (without keys: each client address); None for no limit.
        rate_burst: Requests that a key may send at once within its rate.
        body_bytes: Largest body of a request, after decompression.
        upload_bytes: Largest upload of a task, after decompression.
        buffer_bytes: Most bytes of all bodies and responses in the memory of a process; beyond it, requests get 503.
        max_inputs: Most inputs in a request.
        max_characters: Most characters in an input, its words included.
        max_words: Most words in an input with spans.
        max_connections: Most open connections of a process.
        timeout_seconds: Most seconds for a request; a client may ask for less.
        body_seconds: Most seconds until the body of a request has arrived, or in which a client takes hardly any of
            its response.
        header_seconds: Most seconds until the headers of a request have arrived.
        response_seconds: Most seconds until a client has received what was sent to it.
        keep_alive_seconds: Seconds that an idle connection stays open.
        drain_seconds: Most seconds for finishing requests after a stop was requested.
        max_jobs: Most jobs that wait.
        queue_inputs: Most inputs that wait in a process.
        batch_inputs: Most inputs in a batch.
        batch_tokens: Most tokens in a batch, estimated.
        batch_seconds: Time that a batch should take; batches are made smaller to hold it.
        batch_wait_seconds: Longest wait for more inputs after a batch, under load; there is none when idle.
        poll_seconds: Seconds between looks for a new generation.
        log_level: "debug", "info", "warning" or "error".
        log_texts: Whether the log may contain the inputs.
        log_predictions: What is recorded of predictions: "off", "hash" or "text"; by default as in the workspace.
        log_to: Folder of the record of predictions; by default the workspace's.
        watch_seconds: Seconds between looks at the record for changes (`conpet watch`); None to watch on request only.
        watch_webhook: Address that each alarm is sent to, once, with http:// or https://.
        watch_reference: Number of first inputs that the others are compared with, or a duration like 24h.
        watch_window: Number of last inputs whose values are shown, or a duration.
        watch_false_alarm: Probability that there is ever an alarm if nothing changes.
        dashboard: Whether there are pages for people, below /ui/.
        session_hours: Hours after which someone who signed in to the pages must do so again.
        proxy_header: Header in which a proxy names the user that it has signed in, for example X-Forwarded-User.
        proxy_role: Role of the users that the proxy names.
        proxy_role_header: Header in which the proxy names the role of a user, instead of `proxy_role`.
        proxy_addresses: Addresses of proxies; the headers of others are ignored.
    """

    noun: ClassVar[str] = "serve setting"

    workspace: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    backbone: str | None = None
    device: str | None = None
    threads: Count | None = None
    insecure: bool = False
    keys_file: Path | None = None
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    rate_limit: Annotated[float, Field(gt=0)] | None = None
    rate_burst: Count = 20
    body_bytes: Count = 4 << 20
    upload_bytes: Count = 64 << 20
    buffer_bytes: Count = 128 << 20
    max_inputs: Count = 1024
    max_characters: Count = 20_000
    max_words: Count = 2_000
    max_connections: Count = 2_000
    timeout_seconds: Seconds = 30.0
    body_seconds: Seconds = 30.0
    header_seconds: Seconds = 10.0
    response_seconds: Seconds = 60.0
    keep_alive_seconds: Count = 5
    drain_seconds: Seconds = 30.0
    max_jobs: Count = 100
    queue_inputs: Count = 4096
    batch_inputs: Count = 256
    batch_tokens: Count = 16_384
    batch_seconds: Seconds = 0.25
    batch_wait_seconds: Annotated[float, Field(ge=0, le=1)] = 0.002
    poll_seconds: Annotated[float, Field(gt=0, le=1)] = 0.2
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_texts: bool = False
    log_predictions: Annotated[Literal["off", "hash", "text"], BeforeValidator(switch)] | None = None
    log_to: Path | None = None
    watch_seconds: Seconds | None = None
    watch_webhook: str | None = None
    watch_reference: int | str = REFERENCE
    watch_window: int | str = WINDOW
    watch_false_alarm: float = 0.05
    dashboard: bool = True
    session_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 12.0
    proxy_header: HeaderName | None = None
    proxy_role: Role = Role.PREDICT
    proxy_role_header: HeaderName | None = None
    proxy_addresses: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("127.0.0.1", "::1")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_inputs > self.queue_inputs:
            raise ValueError(
                f"max_inputs={self.max_inputs} is larger than queue_inputs={self.queue_inputs}: the largest request "
                "would never be accepted; raise queue_inputs or lower max_inputs"
            )
        if self.body_bytes > self.buffer_bytes:
            raise ValueError(
                f"body_bytes={self.body_bytes} is larger than buffer_bytes={self.buffer_bytes}: the largest request "
                "would never be accepted; raise buffer_bytes or lower body_bytes"
            )
        self._check_watching()
        self._check_proxy()
        return self

    def _check_proxy(self) -> None:
        if self.proxy_role_header is not None and self.proxy_header is None:
            raise ValueError("proxy_role_header: name the header with the user, too (proxy_header)")
        for address in self.proxy_addresses:
            ipaddress.ip_address(address)

    def _check_watching(self) -> None:
        WatchOptions.of(self.watch_false_alarm, self.watch_reference, self.watch_window)
        if self.watch_webhook is not None:
            check_url(self.watch_webhook)
            if self.watch_seconds is None:
                raise ValueError("watch_webhook: alarms are sent only with watch_seconds")

    @property
    def keys(self) -> Path:
        """The file of the API keys."""
        return self.keys_file or self.workspace / KEYS

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any],
        file: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the settings: flags win over the environment, and the environment over the file.

        Args:
            flags: Settings given as flags; None counts as not given.
            file: A YAML file of settings; by default the one named by `CONPET_SERVE_CONFIG`.
            environment: Environment variables; by default those of the process.

        Raises:
            ConfigError: A setting is unknown or wrong, or the file cannot be read.
        """
        environment = os.environ if environment is None else environment
        if file is None and environment.get(CONFIG):
            file = Path(environment[CONFIG])
        known = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX) and name != CONFIG and value != ""
        }
        given = {name: value for name, value in flags.items() if value is not None}
        in_file = _read(file)
        try:
            return cls.parse({**in_file, **known, **given})
        except ConfigError as error:
            origins = dict.fromkeys(in_file, str(file)) | {name: f"{PREFIX}{name.upper()}" for name in known}
            wrong = {name: origin for name, origin in origins.items() if name not in given}
            sources = [
                f"{name} is from {origin}" for name, origin in wrong.items() if f"setting {name!r}" in str(error)
            ]
            raise ConfigError("; ".join([str(error), *sources])) from None


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = load_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {file}: {reason_of(error, file)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the settings file {file} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: give settings as `name: value`, one on each line")
    return {str(name): value for name, value in values.items()}
