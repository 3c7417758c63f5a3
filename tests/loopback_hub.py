"""A small Hugging Face Hub on the loopback, which serves published layouts from a folder, and can misbehave.

It speaks the part of the protocol that downloads need: ``HEAD`` and ``GET`` of ``/REPO/resolve/REVISION/FILE`` with a
redirect to the content as for large files, ``Range``, and the headers ``X-Repo-Commit``, ``ETag``, ``X-Linked-Etag``
and ``X-Linked-Size``.
"""
from __future__ import annotations

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = '0123456789abcdef0123456789abcdef01234567'
HTML = b'<!DOCTYPE html><html><body>Please sign in to this network.</body></html>'


class LoopbackHub:
    """Server of the files in a folder, ``FOLDER/OWNER/NAME/FILE`` and ``FOLDER/datasets/OWNER/NAME/FILE``.

    Attributes:
        url: Value for ``HF_ENDPOINT``.
        requests: Method, path and range of every request.
        cut: Number of responses, out of the next ones with content, of which only the first half is sent.
        altered: True serves contents of the right size with one changed byte.
        portal: True answers every request with a web page, as the sign-in page of a network does.
        page_as_content: True serves a web page where the content is expected.
        xet: True adds the headers of Xet storage, whose servers do not exist here.
        proxied: URLs of the requests of clients that use this server as their proxy.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut, self.altered, self.portal, self.page_as_content = 0, False, False, False
        self.xet, self.proxied = False, []
        handler = type('Handler', (_Handler,), {'hub': self})
        # The content has an origin of its own, as at the real hub; redirects within an origin are followed at once.
        self.servers = [ThreadingHTTPServer(('127.0.0.1', 0), handler) for _ in range(2)]
        self.url, self.content_url = (f'http://127.0.0.1:{server.server_port}' for server in self.servers)

    def __enter__(self) -> LoopbackHub:
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop to answer; later connections are refused."""
        while self.servers:
            server = self.servers.pop()
            server.shutdown()
            server.server_close()

    @property
    def contents(self) -> list[str | None]:
        """Ranges of the requests for content, in order; None asks for all of it."""
        return [range_ for method, path, range_ in self.requests if method == 'GET' and path.startswith('/content/')]

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of a process that uses this hub and an own cache."""
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith('HF_') and key.lower() not in ('http_proxy', 'https_proxy', 'all_proxy')}
        return kept | {'HF_ENDPOINT': self.url, 'HF_HOME': str(home), 'HF_HUB_DISABLE_XET': '1',
                       'HF_HUB_DISABLE_TELEMETRY': '1'}

    def use(self, monkeypatch, home: Path) -> None:
        """Let this process use the hub and an empty cache, which huggingface_hub reads from its constants."""
        from huggingface_hub import constants
        monkeypatch.setattr(constants, 'ENDPOINT', self.url)
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
                            self.url + '/{repo_id}/resolve/{revision}/{filename}')
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(home / 'hub'))
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        for name in ('http_proxy', 'https_proxy', 'all_proxy'):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)


def publish_small_uni3d(folder: Path, catalogue: dict, monkeypatch) -> Path:
    """Write a file of one block in the published layout of ``uni3d-ti``, and give its catalogue entry this depth."""
    import torch

    from clipgs_plugin.models import GSEncoder
    from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint
    backbone = dict(type='Uni3D', size='ti', depth=1, in_channels=512)
    contract = catalogue['uni3d-ti']['contract'] | dict(embed_dim=24)
    encoder = GSEncoder(dict(type='GSTokenizer', channels=512, refine=False), dict(backbone), 24)
    path = folder / 'BAAI' / 'Uni3D' / 'modelzoo' / 'uni3d-ti' / 'model.pt'
    path.parent.mkdir(parents=True)
    export_point_cloud_checkpoint(encoder, path, 'uni3d')
    state = torch.load(path)['module']
    state |= {'module.point_encoder.trans2embed.weight': torch.rand(24, 192),
              'module.point_encoder.trans2embed.bias': torch.rand(24),
              'module.point_encoder.visual.pos_embed': torch.rand(1, 5, 192),  # of an image model, unused
              'module.logit_scale': torch.tensor(4.25)}
    torch.save({'module': state, 'optimizer': {'step': torch.ones(1)}}, path)
    monkeypatch.setitem(catalogue, 'uni3d-ti', catalogue['uni3d-ti'] | dict(contract=contract, architecture=dict(
        tokenizer=dict(channels=512), backbone=backbone)))
    return path


class _Handler(BaseHTTPRequestHandler):
    """Handler of one connection."""

    hub: LoopbackHub
    protocol_version = 'HTTP/1.1'
    timeout = 10

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        hub = self.hub
        if self.path.startswith('http://'):
            hub.proxied.append(self.path)
            self.path = urlsplit(self.path).path
        hub.requests.append((self.command, self.path, self.headers.get('Range')))
        if hub.portal:
            return self._send(200, HTML, {'Content-Type': 'text/html'})
        if self.path.startswith('/content/'):
            return self._content(hub.folder / self.path.removeprefix('/content/'))
        repo, resolve, rest = self.path.lstrip('/').partition('/resolve/')
        revision, _, name = rest.partition('/')
        path = hub.folder / repo / name
        if not resolve or not (hub.folder / repo).is_dir():
            return self._send(404, b'', {'X-Error-Code': 'RepoNotFound'})
        if revision not in ('main', COMMIT):
            return self._send(404, b'', {'X-Error-Code': 'RevisionNotFound'})
        if not path.is_file():
            return self._send(404, b'', {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': COMMIT})
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        xet = {'X-Xet-Hash': digest, 'X-Xet-Refresh-Route': f'{hub.url}/api/xet-read-token'} if hub.xet else {}
        return self._send(302, b'', {
            'Location': f'{hub.content_url}/content/{repo}/{name}', 'X-Repo-Commit': COMMIT, 'ETag': f'"{COMMIT}"',
            'X-Linked-Etag': f'"{digest}"', 'X-Linked-Size': str(path.stat().st_size), **xet})

    def _content(self, path: Path) -> None:
        body = path.read_bytes()
        if self.hub.altered:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if self.hub.page_as_content:
            return self._send(200, HTML, {'Content-Type': 'text/html'})
        start, size = 0, len(body)
        if self.headers.get('Range'):
            start = int(self.headers['Range'].removeprefix('bytes=').partition('-')[0])
        extra = {'Content-Range': f'bytes {start}-{size - 1}/{size}'} if start else {}
        cut, self.hub.cut = self.hub.cut > 0, max(self.hub.cut - 1, 0)
        self._send(206 if start else 200, body[start:], extra, cut and self.command == 'GET')

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(body[:len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True
