"""`GET /`: the page for operators and for people who try drover out. Static files without data, from the package.

The page asks the API for everything it shows, as any caller would, so these files tell nothing to whoever reads them.
"""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/form.js": ("form.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
PATHS = frozenset(FILES)
# Results lie at other hosts: https everywhere, and the stand-in hub's on this machine. Everything else is the page's
# own, and no text can become markup (trusted types), whatever a request or the hub says.
RESULTS = "https: http://127.0.0.1:* http://localhost:*"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        f"img-src data: {RESULTS}",  # data: is the empty icon
        f"media-src {RESULTS}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}


class Page:
    """The routes. Each file is read once, here."""

    def __init__(self) -> None:
        folder = files("service.http") / "static"
        self._files = {path: ((folder / name).read_text("utf-8"), kind) for path, (name, kind) in FILES.items()}

    def routes(self) -> list[web.RouteDef]:
        """What the server is to answer."""
        return [web.get(path, self._file) for path in self._files]

    async def _file(self, request: web.Request) -> web.StreamResponse:
        text, kind = self._files[request.path]
        return web.Response(text=text, content_type=kind, charset="utf-8", headers=HEADERS)
