"""One HTTP GET of the operator's own URL: small, once, from nowhere else.

Apart from `jwks`, for httpx is 4 MiB that only a daemon with published keys needs.
"""

from __future__ import annotations

import ssl

import httpx
import trio


class Unfetched(Exception):
    """No document came; `code` says why, in a word."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


async def get(url: str, context: ssl.SSLContext, *, timeout: float, most: int) -> bytes:  # noqa: ASYNC109  # httpx's
    """The document.

    Args:
        url: http(s).
        context: whom to trust.
        timeout: seconds for each of httpx's steps; the caller bounds the whole.
        most: bytes of the document.

    Raises:
        Unfetched: it did not come, or not as asked.
    """
    try:
        return await _get(url, context, timeout, most)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as exc:
        raise Unfetched(type(exc).__name__) from None


async def _get(url: str, context: ssl.SSLContext, step: float, most: int) -> bytes:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with (
        httpx.AsyncClient(verify=context, follow_redirects=False, trust_env=False, timeout=step) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise Unfetched(f"status_{response.status_code}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Unfetched("compressed_although_not_asked")
        document = bytearray()
        try:
            async for chunk in response.aiter_raw():
                document += chunk
                if len(document) > most:
                    # Not left by an exception: httpx's inner generators would be left to the garbage collector, at
                    # which Trio warns.  The connection is closed under them instead, and they end by themselves.
                    await response.aclose()
        except (httpx.StreamError, httpx.HTTPError, trio.ClosedResourceError):
            if len(document) <= most:
                raise
        if len(document) > most:
            raise Unfetched("document_too_large")
        return bytes(document)
