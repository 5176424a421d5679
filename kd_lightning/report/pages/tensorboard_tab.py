"""TensorBoard's Distillation tab: the live report of the directory that TensorBoard serves.

TensorBoard imports this module when it starts, so it must be light and must never fail: only the standard library and
TensorBoard's own base class are imported here, the rest when the tab is opened; every answer is wrapped, so that a
fault becomes a message inside the tab. The tab is an iframe; its scripts are served as files of their own, because
TensorBoard's content security policy allows no inline script.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.plugins import base_plugin

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
_TYPES = {".js": "application/javascript", ".css": "text/css", ".html": "text/plain", ".json": "application/json"}
_FILES = ("tab.js", "charts.js", "table.js", "report.js", "report.css", "body.html")
_YEAR = 31_536_000


class DistillationTab(base_plugin.TBPlugin):
    """Serves the report's content and assets under ``/data/plugin/kd_lightning/``."""

    plugin_name = "kd_lightning"

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._roots: list[Path] = []
        self._live: Any = None
        try:
            self._roots = _local_directories(context)
        except Exception:
            logger.exception("kd-lightning: the Distillation tab found no directory to show")

    def is_active(self) -> bool:
        """Whether there is a sweep or a run to show."""
        try:
            return bool(self._reports().places())
        except Exception:
            logger.exception("kd-lightning: the Distillation tab is off")
            return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/tab.js", tab_name="Distillation", disable_reload=True)

    def get_plugin_apps(self) -> dict[str, Callable]:
        apps = {f"/{name}": _guarded(_file_answer(name)) for name in _FILES}
        apps["/plotly.js"] = _guarded(self._plotly)
        apps["/sweeps"] = _guarded(self._sweeps)
        apps["/signature"] = _guarded(self._signature)
        apps["/content"] = _guarded(self._content)
        return apps

    def _reports(self) -> Any:
        if self._live is None:
            from kd_lightning.report.pages.live import LiveReports

            self._live = LiveReports(self._roots)
        return self._live

    def _plotly(self, request: Any) -> tuple[str, str, int]:
        from kd_lightning.report.pages.page import plotly_script

        return plotly_script(), _TYPES[".js"], _YEAR

    def _sweeps(self, request: Any) -> tuple[Any, str, int]:
        import plotly

        names = [place.id for place in self._reports().places()]
        return {"sweeps": names, "plotly": plotly.__version__}, _TYPES[".json"], 0

    def _signature(self, request: Any) -> tuple[Any, str, int]:
        return {"signature": self._reports().signature(request.args.get("sweep"))}, _TYPES[".json"], 0

    def _content(self, request: Any) -> tuple[str, str, int]:
        return self._reports().content(request.args.get("sweep")), _TYPES[".json"], 0


def _local_directories(context: base_plugin.TBContext) -> list[Path]:
    """The directories of ``--logdir`` or ``--logdir_spec`` (``name:path,name:path``) on this machine.

    They needn't exist yet: TensorBoard may be started before the first run.
    """
    flags = context.flags
    texts = [context.logdir or getattr(flags, "logdir", "") or ""]
    spec = getattr(flags, "logdir_spec", "") or ""
    texts += [part.partition(":")[2] or part for part in spec.split(",")]
    paths = [Path(text).expanduser() for text in texts if text and "://" not in text]
    return list(dict.fromkeys(paths))


def _file_answer(name: str) -> Callable[[Any], tuple[str, str, int]]:
    def answer(request: Any) -> tuple[str, str, int]:
        return (ASSETS / name).read_text(encoding="utf-8"), _TYPES[Path(name).suffix], 0

    return answer


def _guarded(answer: Callable[[Any], tuple[Any, str, int]]) -> Callable:
    """A WSGI application that turns any fault of ``answer`` into a JSON error, which the tab shows as a message."""

    def app(environ: dict[str, Any], start_response: Callable) -> Any:
        from tensorboard.backend import http_util
        from werkzeug import wrappers

        request = wrappers.Request(environ)
        try:
            content, kind, expires = answer(request)
            response = http_util.Respond(request, content, kind, expires=expires)
        except LookupError as error:
            text = str(error.args[0] if error.args else error)
            response = http_util.Respond(request, {"error": text}, _TYPES[".json"], code=404)
        except Exception as error:
            logger.exception("kd-lightning: the Distillation tab could not answer %s", request.path)
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            response = http_util.Respond(request, {"error": text}, _TYPES[".json"], code=500)
        return response(environ, start_response)

    return app
