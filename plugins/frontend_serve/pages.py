"""The web page and what it asks for beyond OpenAI's API: pictures, and what a character knows at a story time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query
from fastapi.responses import Response

from camelbell_plugins.frontend_serve.avatar import avatar
from camelbell_plugins.frontend_serve.speakers import Speakers
from camelbell_plugins.frontend_serve.wire import BEARER, ERRORS, Knowledge, Refusal, documented

PAGE = {
    "/": "index.html",
    "/app.js": "app.js",
    "/api.js": "api.js",
    "/words.js": "words.js",
    "/style.css": "style.css",
    "/icon.svg": "icon.svg",
}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_PICTURE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
_Name = Annotated[str, Path(max_length=200)]


def add_page(app: FastAPI, speakers: Speakers) -> None:
    """Add the page's routes; all that they show is in memory."""
    folder = files("camelbell_plugins.frontend_serve") / "page"
    for address, file in PAGE.items():
        kind = _TYPES[file.rpartition(".")[2]]
        response = _still((folder / file).read_bytes(), f"{kind}; charset=utf-8", {"Cache-Control": "no-cache"})
        app.add_api_route(address, response, methods=["GET", "HEAD"], include_in_schema=False)
    pictures = {name: avatar(session.character) for name, session in speakers.characters.items()}

    @app.get("/camelbell/avatars/{name}", response_class=Response, include_in_schema=False)
    async def picture(name: _Name) -> Response:
        """Show a character's picture."""
        if name not in pictures:
            raise Refusal(404, "there is no such character", "model_not_found", "name")
        return Response(pictures[name], media_type="image/svg+xml", headers=_PICTURE)

    @app.get("/camelbell/story/{name}/{when}", dependencies=[Depends(BEARER)], responses=documented(ERRORS))
    async def story(name: _Name, when: _Name, language: Annotated[str, Query(max_length=20)] = "") -> Knowledge:
        """Tell what a character knows at a point of its story, such as 3-22."""
        session, _ = speakers.find(name)
        spoken = language if language in session.character.languages else session.character.languages[0]
        return speakers.knowledge(name, when, spoken)


def _still(body: bytes, media_type: str, headers: dict[str, str]) -> Callable[[], Awaitable[Response]]:
    async def response() -> Response:
        return Response(body, media_type=media_type, headers=headers)

    return response
