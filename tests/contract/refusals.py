"""Has a daemon refuse, at every operation of the copy, what every operation of its kind refuses."""

import re

import httpx

from tests.contract.reference import SAFE, Endpoint, Reference
from tests.contract.shapes import field
from tests.contract.witness import field_errors

MAX_BODY = 1 << 20
"""Bytes of a body that a daemon takes when no setting says otherwise."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
JSON = {"Content-Type": "application/json"}


def path_of(endpoint: Endpoint, account_id: str) -> str:
    """The operation's path for an account; other ids are of nothing there is."""
    path = endpoint.path.replace("{account_id}", account_id)
    return re.sub(r"\{(\w+)\}", lambda name: f"no-{name[1]}", path)


def refuse_all(
    reference: Reference, signed_in: httpx.Client, signed_out: httpx.Client, account_id: str
) -> list[str]:
    """Ask everything as it must not be asked; what of it was not refused as it should be, beyond a witness's word."""
    faults = []
    for endpoint in reference.endpoints:
        path = path_of(endpoint, account_id)
        signed_out.request(endpoint.method, path)
        if endpoint.method not in SAFE:
            signed_in.request(endpoint.method, path, headers={"Sec-Fetch-Site": "cross-site"})
            signed_in.request(endpoint.method, path, content=b"a=b", headers={"Content-Type": "text/plain"})
        if endpoint.body is not None:
            signed_in.request(endpoint.method, path, content=b" " * (MAX_BODY + 1), headers=JSON)
            signed_in.request(endpoint.method, path, content=b"[", headers=JSON)
            nothing_right = {field(name): {"it": "is no object"} for name in endpoint.body}
            answer = signed_in.request(endpoint.method, path, json=nothing_right)
            faults += [f"{endpoint.name} says nothing of {name}" for name in field_errors(endpoint, answer)]
        for name in endpoint.query:
            signed_in.request(endpoint.method, path, params={name: "no number"})
    for path in {endpoint.path: None for endpoint in reference.endpoints}:
        asked = path_of(next(found for found in reference.endpoints if found.path == path), account_id)
        for method in set(METHODS) - {endpoint.method for endpoint in reference.at(asked)}:
            signed_in.request(method, asked)
    signed_in.get("/mail/nothing")
    return faults
