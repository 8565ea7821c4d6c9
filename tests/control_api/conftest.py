"""An API over the in-memory service, and a caller that holds every answer against the OpenAPI document."""

import json
import re

import jsonschema_rs
import pytest
import trio

from control_api.app import ControlApi, create_app
from control_api.jwks import PublishedKeys, fetcher
from control_api.server import Listener
from control_api.tokens import SharedSecret, TokenVerifier
from daemon.settings import Settings
from daemon.vault.secret import Secret
from tests.control_api.forge import Forge
from tests.control_api.memory_service import RIGHT_PASSWORD, MemoryService

SECRET = "a session secret of at least thirty-two bytes"
ORIGIN = "https://app.example.com"
MAILBOX = {
    "email": "you@example.com", "imap_host": "imap.example.com", "imap_port": 993, "smtp_host": "smtp.example.com",
    "smtp_port": 587, "username": "you@example.com", "password": RIGHT_PASSWORD,
}


def pattern_of(template):
    """What a path of the document matches."""
    return re.sub(r"\{(\w+)\}", lambda name: "[0-9a-fA-F-]{36}" if name[1] == "account_id" else ".+", template)


class Document:
    """The published OpenAPI document, as a judge of answers."""

    def __init__(self, document):
        self.document = document
        self.seen = set()

    def judge(self, method, path, status, headers, body):
        """Fail unless the document foresees this answer; paths it does not know may only be refused."""
        for template, methods in self.document["paths"].items():
            if re.fullmatch(pattern_of(template), path.partition("?")[0]) and method.lower() in methods:
                described = methods[method.lower()]
                break
        else:
            schema = {"$ref": "#/components/schemas/Failure"}
            assert status >= 400 or method in {"HEAD", "OPTIONS"} or path.startswith(("/mail/docs", "/mail/openapi"))
            if status < 400:
                return
            self._conforms(schema, body)
            return
        self.seen.add((described["operationId"], status))
        assert str(status) in described["responses"], f"{status} of {described['operationId']} is not documented"
        assert headers["Content-Type"] == "application/json"
        if status in {429, 503}:
            assert int(headers["Retry-After"]) >= 1
        self._conforms(described["responses"][str(status)]["content"]["application/json"]["schema"], body)

    def _conforms(self, schema, body):
        whole = {**schema, "components": self.document["components"]}
        jsonschema_rs.validate(whole, json.loads(body), validate_formats=True)


class Caller:
    """A test client with a session, whose answers are judged."""

    def __init__(self, app, document, token):
        self.client = app.test_client()
        self.document = document
        self.token = token

    async def __call__(self, method, path, *, token=..., cookie=None, **given):
        token = self.token if token is ... else token
        headers = list(given.pop("headers", []))
        if cookie is not None:
            headers.append(("Cookie", cookie))
        elif token:
            headers.append(("Cookie", f"sb-access-token={token}"))
        if "json" in given:
            given["data"] = json.dumps(given.pop("json")).encode()
            headers.append(("Content-Type", "application/json"))
        if "data" in given:     # as every client on HTTP/1.1 does, and Quart's does not
            headers.append(("Content-Length", str(len(given["data"]))))
        answer = await self.client.open(path, method=method, headers=headers, **given)
        body = await answer.get_data()
        if method != "HEAD":
            self.document.judge(method, path, answer.status_code, answer.headers, body)
        return answer


@pytest.fixture
def service():
    return MemoryService()


@pytest.fixture
def settings():
    return Settings.model_validate({
        "api": {"handler_timeout": 20, "max_body": 4096, "max_requests": 8, "trusted_proxies": ["127.0.0.0/8"]},
        "auth": {"mode": "hs256", "origins": [ORIGIN]},
    })


@pytest.fixture
def app(service, settings):
    return create_app(settings, service, Secret(SECRET))


@pytest.fixture
async def document(app):
    answer = await app.test_client().get("/mail/openapi.json")
    return Document(await answer.get_json())


@pytest.fixture
def make_session(jwks_server):
    """A token for the local set-up, by any claim."""
    return lambda **claims: jwks_server.make_token(alg="HS256", key=SECRET, **{"iss": "accountsd", **claims})


@pytest.fixture
def token(make_session):
    """One of somebody who is signed in."""
    return make_session()


@pytest.fixture
def call(app, document, make_session):
    return Caller(app, document, make_session(sub="user-1"))


@pytest.fixture
async def listening(app, nursery):
    """The same API on a real socket: its address."""
    listener = Listener(app, "127.0.0.1:0", grace=0.5, head_timeout=1.0, send_timeout=1.0)
    return await nursery.start(lambda task_status: listener.serve(task_status=task_status))


async def serving(nursery, app, **options):
    """A listener with these options, the scope that stops it, and its address."""
    listener = Listener(app, "127.0.0.1:0", **({"grace": 0.5} | options))
    scope = trio.CancelScope()

    async def run(task_status):
        with scope:
            await listener.serve(task_status=task_status)

    return listener, scope, await nursery.start(lambda task_status: run(task_status))


@pytest.fixture
def app_with_much_to_say(app):
    """The API with a page that no socket's buffers hold."""

    async def much():
        return b"x" * (64 << 20)

    app.add_url_rule("/much", "much", much, methods=["GET"])
    return app


@pytest.fixture(params=["published", "shared"])
async def forge(request, jwks_server, service, nursery):
    """An API in each mode, with a good token before and after what a test does to it; see `forge`."""
    if request.param == "shared":
        keys = SharedSecret(Secret(SECRET))
    else:
        keys = PublishedKeys(fetcher(jwks_server.url, None))
    app = ControlApi(Settings(), service, TokenVerifier(keys, jwks_server.issuer, "free"))
    listener = Listener(app, "127.0.0.1:0", grace=0.5, head_timeout=5.0, send_timeout=5.0)
    address = await nursery.start(lambda task_status: listener.serve(task_status=task_status))
    made = Forge(request.param, jwks_server, address, SECRET)
    assert (await made.session(made.token()))[0] == 200
    yield made
    assert (await made.session(made.token()))[0] == 200, "the attacks did something to who is signed in"
    nursery.cancel_scope.cancel()
