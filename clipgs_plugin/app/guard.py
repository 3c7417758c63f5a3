"""Protection of a page on this machine from pages of others, and from other users of the machine."""
from __future__ import annotations

import hmac
import json
from http.cookies import CookieError, SimpleCookie

PAGE_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
               "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
# The client of viser makes its scripts itself; in an opaque origin without network they reach nothing.
VIEWER_POLICY = ("sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
                 "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src data: blob:; "
                 "worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'")
HEADERS = {b'x-content-type-options': b'nosniff', b'referrer-policy': b'no-referrer',
           b'cross-origin-resource-policy': b'same-origin', b'cross-origin-opener-policy': b'same-origin'}
MARK = b'x-clipgs'  # header of the page's own requests; other sites cannot send it without being asked first
MAX_BODY, MAX_UPLOAD = 4 << 20, 256 << 20  # bytes


class TooLarge(ValueError):
    """Body of a request beyond its bound."""


class Guard:
    """ASGI application around another that lets only the page's own requests through.

    A request has to name this machine as its host, which a page that rebinds its domain does not. It brings the token
    of this run, which is a cookie once the page was opened by its address. Requests of other sites are refused by
    their ``Origin`` and ``Sec-Fetch-Site``, and whatever changes something needs the header of the page's script.

    Args:
        app: Application to protect.
        port: Port of this server.
        token: Secret of this run.
    """

    def __init__(self, app, port: int, token: str) -> None:
        self.app, self.token = app, token
        self.hosts = {f'{host}:{port}' for host in ('127.0.0.1', 'localhost')}
        self.cookie = f'clipgs_{port}'

    async def __call__(self, scope, receive, send) -> None:
        if scope['type'] == 'lifespan':
            return await self.app(scope, receive, send)
        if scope['type'] != 'http':
            return None
        headers = {key.lower(): value.decode('latin-1') for key, value in scope['headers']}
        opened = self._opens(scope)
        reason = self._refusal(scope, headers, opened)
        if reason:
            return await _refuse(send, *reason)
        limit = MAX_UPLOAD if scope['path'] == '/api/query' else MAX_BODY
        cookie = f'{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict' if opened else ''
        try:
            await self.app(scope, _bounded(receive, limit), _with_headers(send, cookie))
        except TooLarge as error:
            await _refuse(send, 413, str(error))

    def _refusal(self, scope, headers: dict[bytes, str], opened: bool) -> tuple[int, str] | None:
        """Return status and reason if a request is refused."""
        host, origin = headers.get(b'host', ''), headers.get(b'origin')
        if host.lower() not in self.hosts:
            return 421, 'this page answers only under the address that the program printed'
        if origin is not None and origin.lower() != f'http://{host.lower()}':
            return 403, 'a page of another site asked; open the address that the program printed'
        if headers.get(b'sec-fetch-site', 'none') not in ('same-origin', 'none') and not opened:
            return 403, 'a page of another site asked; open the address that the program printed'
        if scope['method'] not in ('GET', 'HEAD') and headers.get(MARK) != '1':
            return 403, 'only the script of the page may change something'
        if not opened and not self._has_cookie(headers.get(b'cookie', '')):
            return 401, 'open the address that the program printed, with its token'
        return None

    def _opens(self, scope) -> bool:
        """Check whether the page is opened by the address with its token."""
        name, _, given = scope['query_string'].decode('latin-1').partition('=')
        return scope['path'] == '/' and scope['method'] == 'GET' and name == 'token' and self._equal(given)

    def _has_cookie(self, text: str) -> bool:
        try:
            found = SimpleCookie(text).get(self.cookie)
        except CookieError:
            return False
        return found is not None and self._equal(found.value)

    def _equal(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def _bounded(receive, limit: int):
    """Count the bytes of a body while they arrive."""
    seen = 0

    async def counted():
        nonlocal seen
        message = await receive()
        seen += len(message.get('body', b''))
        if seen > limit:
            raise TooLarge(f'the request has more than {limit:,} bytes')
        return message
    return counted


def _with_headers(send, cookie: str):
    """Add headers to every answer; a policy that the answer has is kept."""
    async def extended(message):
        if message['type'] == 'http.response.start':
            held = {key.lower() for key, _ in message['headers']}
            added = dict(HEADERS)
            if b'content-security-policy' not in held:
                added[b'content-security-policy'] = PAGE_POLICY.encode()
            if b'cache-control' not in held:
                added[b'cache-control'] = b'no-store'
            if cookie:
                added[b'set-cookie'] = cookie.encode()
            message = {**message, 'headers': [*message['headers'], *added.items()]}
        await send(message)
    return extended


async def _refuse(send, status: int, reason: str) -> None:
    headers = [(b'content-type', b'application/json'), *HEADERS.items()]
    await send({'type': 'http.response.start', 'status': status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': json.dumps({'error': reason}).encode()})
