"""The client of a server (`conpet serve`): `Client`, and `AsyncClient` for asyncio."""

from conpet.client.asynchronous import AsyncClient
from conpet.client.records import TaskInfo, VersionInfo
from conpet.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "TaskInfo", "VersionInfo"]
