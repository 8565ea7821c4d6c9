"""The program of `api`: the control API as the daemon serves it, or a bare Quart-Trio application under Hypercorn.

python -P -m ops.bench.api_child < request.json
"""

from __future__ import annotations

from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response
from quart_trio import QuartTrio

from control_api.app import create_app
from control_api.server import serve_api
from daemon.account.caller_rates import CallerRates
from daemon.account.service import AccountService
from daemon.identity import Plans
from daemon.settings import Settings
from daemon.storage.database import Database
from daemon.storage.requests import Requests
from daemon.telemetry import logs
from daemon.vault.secret import Secret

from .child import request
from .place import CONNECTIONS, dialer_to, vault_of


async def _api(wanted: dict[str, Any]) -> None:
    settings = Settings()
    async with Database(wanted["conninfo"], size=CONNECTIONS) as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch)
        service = AccountService(
            Requests(database, migrated=lambda: True),
            dialer_to((), None),
            vault_of(bytes.fromhex(wanted["key"])),
            Plans({}, settings.auth.default_plan),
            rates=CallerRates.of(**settings.rates.model_dump()),
            nudge=lambda: None,
        )
        await serve_api(create_app(settings, service, Secret(wanted["secret"])), f"127.0.0.1:{wanted['port']}")


async def _bare(wanted: dict[str, Any]) -> None:
    app, body = QuartTrio(__name__), wanted["body"].encode()

    @app.get("/mail/accounts")
    async def accounts() -> Response:
        return Response(body, content_type="application/json")

    config = Config()
    config.bind = [f"127.0.0.1:{wanted['port']}"]
    config.accesslog = config.errorlog = None
    await serve(app, config, mode="asgi")


def main() -> None:
    """Serve until killed."""
    wanted = request()
    logs.set_up("error", "text")
    trio.run({"api": _api, "bare": _bare}[wanted["kind"]], wanted)


if __name__ == "__main__":
    main()
