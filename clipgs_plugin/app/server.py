"""Server of the page, on this machine only."""
from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from clipgs_plugin.app.guard import VIEWER_POLICY, Guard, TooLarge
from clipgs_plugin.app.requests import Copying, Details, Find, Listing, Tagging
from clipgs_plugin.app.selections import KINDS, copy_selection, selection_list
from clipgs_plugin.app.site import Outdated, Site, Sites
from clipgs_plugin.app.static_files import SHARED, page_text, static_text
from clipgs_plugin.app.thumbnails import still_of
from clipgs_plugin.app.viewer import has_viewer, viewer_page
from clipgs_plugin.io import format_of_name
from clipgs_plugin.visualization.embedding_map import has_umap

STATIC = dict(css='text/css; charset=utf-8', js='text/javascript; charset=utf-8')
MAX_IMAGE = 32 << 20


def _site(request: Request, state: str | None = None) -> Site:
    return request.app.state.sites.at(state)


CurrentSite = Annotated[Site, Depends(_site)]  # of a request that may name its state


def make_app(sites: Sites, port: int, token: str, workers: int = os.cpu_count() or 1) -> Guard:
    """Make the ASGI application of a page.

    Args:
        sites: What it answers from.
        port: Port it is served at.
        token: Secret of this run, which opens the page.
        workers: Thumbnails that are drawn at the same time.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.sites = sites
    _answer_errors(app)
    _add_page(app)
    _add_search(app, sites)
    _add_objects(app, workers)
    _add_selections(app)
    return Guard(app, port, token)


def _answer_errors(app: FastAPI) -> None:
    """Answer errors by one sentence."""
    def handler(status: int):
        def answer(request: Request, error: Exception) -> Response:
            text = ' '.join(str(error).split())[:500]
            if request.headers.get('sec-fetch-dest') == 'iframe':  # read by a person, in place of a viewer
                return Response(text, status, {'content-security-policy': VIEWER_POLICY}, 'text/plain; charset=utf-8')
            return JSONResponse({'error': text}, status)
        return answer
    for kind, status in ((ValueError, 400), (ImportError, 501), (TooLarge, 413), (Outdated, 409), (OSError, 500),
                         (FileNotFoundError, 404)):
        app.add_exception_handler(kind, handler(status))

    def answer_invalid(request: Request, error: RequestValidationError) -> Response:
        parts = [f'{".".join(map(str, each["loc"][1:]))}: {each["msg"]}' for each in error.errors()[:3]]
        return JSONResponse({'error': '; '.join(parts)}, 422)
    app.add_exception_handler(RequestValidationError, answer_invalid)


def _add_page(app: FastAPI) -> None:
    html = page_text('index.html', ('served.js',), root='static/')
    content = {name: static_text(name) for name in ('served.js', *SHARED)}

    @app.get('/')
    def page() -> Response:
        return HTMLResponse(html)

    @app.get('/static/{name}')
    def static(name: str) -> Response:
        if name not in content:
            raise FileNotFoundError('no such file of the page')
        return Response(content[name], media_type=STATIC[name.rpartition('.')[2]])


def _add_search(app: FastAPI, sites: Sites) -> None:
    @app.get('/api/index')
    def index() -> dict:
        state, site = sites.newest()
        catalog, tags = site.catalog, site.tags.read()
        counts = {tag: len(catalog.rows_of(paths)) for tag, paths in tags.items()}
        return dict(state=state, count=len(catalog), model=catalog.index.model, folder=catalog.objects.folder,
                    columns=catalog.columns(), tags=counts, viewer=has_viewer(), umap=has_umap(),
                    exports=None if site.exports is None else str(site.exports))

    @app.post('/api/find')
    def find(request: Find, site: CurrentSite) -> dict:
        return dict(site.find(request), changed=sites.has_changed())

    @app.post('/api/query')
    async def query(request: Request, site: CurrentSite, kind: Literal['image', 'splat'], name: str) -> dict:
        suffix = Path(format_of_name(name[-200:]).suffix).name if kind == 'splat' else '.image'
        if suffix == 'meta.json':
            raise ValueError('a SOG in several files cannot be uploaded; bundle it as .sog')
        with tempfile.TemporaryDirectory(prefix='clipgs-') as folder:
            path = Path(folder, 'query' + suffix)
            with path.open('wb') as file:
                async for block in request.stream():
                    file.write(block)
                if kind == 'image' and file.tell() > MAX_IMAGE:
                    raise TooLarge(f'the picture has more than {MAX_IMAGE:,} bytes; scale it down')
            try:
                return dict(query=await run_in_threadpool(site.upload, kind, path))
            except (ValueError, OSError) as error:  # names the temporary file
                raise ValueError(str(error).replace(str(path), 'the upload')) from error

    @app.get('/api/map')
    def places(site: CurrentSite, method: Literal['pca', 'umap'] = 'pca') -> dict | None:
        found = site.maps.places(method)
        return None if found is None else dict(rows=site.maps.rows.tolist(),
                                               **dict(zip('xy', np.round(found.T, 4).tolist())))


def _add_objects(app: FastAPI, workers: int) -> None:
    turn = asyncio.Semaphore(workers)

    @app.post('/api/details')
    def details(request: Details, site: CurrentSite) -> list[dict]:
        tags, paths = {tag: set(found) for tag, found in site.tags.read().items()}, site.catalog.objects.paths
        return [dict(each, tags=[tag for tag, found in tags.items() if paths[each['row']] in found])
                for each in site.catalog.details(request.rows)]

    @app.get('/{kind}/{row}.webp')
    async def thumbnail(kind: Literal['thumbnails', 'strips'], row: int, request: Request,
                        site: CurrentSite) -> Response:
        async with turn:
            if await request.is_disconnected():  # scrolled away meanwhile
                return Response(status_code=499)
            path = await run_in_threadpool(site.thumbnails.draw, row)
        return FileResponse(path if kind == 'strips' else still_of(path), media_type='image/webp',
                            headers={'cache-control': 'private, max-age=600'})

    @app.get('/objects/{row}/viewer')
    def viewer(site: CurrentSite, row: int, dark: bool = False) -> Response:
        return HTMLResponse(viewer_page(site.catalog.objects.cloud(row), dark),
                            headers={'content-security-policy': VIEWER_POLICY})

    @app.get('/objects/{row}/file')
    def file(row: int, site: CurrentSite) -> Response:
        path = site.catalog.objects.file(row)
        return FileResponse(path, media_type='application/octet-stream', filename=path.name)


def _add_selections(app: FastAPI) -> None:
    @app.post('/api/tags')
    def tag(request: Tagging, site: CurrentSite) -> dict:
        site.catalog.check(request.rows)
        tags = site.tags.change(request.tag, [site.catalog.objects.paths[row] for row in request.rows], request.on)
        return {tag: len(site.catalog.rows_of(paths)) for tag, paths in tags.items()}

    @app.post('/api/list')
    def listing(request: Listing, site: CurrentSite) -> Response:
        content = selection_list(site.catalog.records(request.rows), request.kind)
        return Response(content, media_type=KINDS[request.kind])

    @app.post('/api/copy')
    def copy(request: Copying, site: CurrentSite) -> dict:
        if site.exports is None:
            raise ValueError('copying is off; start the program with --exports FOLDER')
        site.catalog.check(request.rows)
        folder = copy_selection(site.catalog.objects, request.rows, site.exports, request.folder)
        return dict(folder=str(folder))
