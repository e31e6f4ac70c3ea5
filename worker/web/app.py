"""Owns how the HTTP door is put together: routes, error answers, the API's description, the guard around all of it."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp

from config.settings import Settings
from jobs.request import InvalidRequest
from worker.actions import NoSuchJob, NotPossible
from worker.enqueue import Conflict, Door, StorageFull
from worker.link import RedisAway, RedisRefused
from worker.store import Store
from worker.web import aliases, dashboard, docs, enqueueing, fleet, health, jobs, metrics, outbox
from worker.web.brake import Brake
from worker.web.enqueueing import Rejections
from worker.web.guard import Guard
from worker.web.openapi import describe
from worker.web.problems import Refusal, answer_error
from worker.web.server import WebServer
from worker.web.services import Glance, Services

ROUTERS = (
    health.router,
    dashboard.router,
    docs.router,
    enqueueing.router,
    jobs.router,
    fleet.router,
    outbox.router,
    metrics.router,
    aliases.router,
)
ERRORS: tuple[type[Exception], ...] = (
    Refusal,
    InvalidRequest,
    Conflict,
    StorageFull,
    NoSuchJob,
    NotPossible,
    RedisAway,
    RedisRefused,
    RequestValidationError,
    HTTPException,
    ClientDisconnect,
    Exception,
)


def create_app(*, store: Store, door: Door, settings: Settings) -> ASGIApp:
    """Make the ASGI app: whatever it is asked, it answers, and errors are problems."""
    return Guard(create_api(store=store, door=door, settings=settings), settings.api_tokens)


def create_api(*, store: Store, door: Door, settings: Settings) -> FastAPI:
    """Make what is behind the guard."""
    api = FastAPI(
        title="Onysoft worker",
        version="1",
        docs_url=None,  # its page loads from elsewhere
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,  # a redirect would be made of what the caller says our name is
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.services = Services(store, door, settings, Glance(store))
    api.state.rejections = Rejections(store)
    api.state.brake = Brake()
    for error in ERRORS:
        api.add_exception_handler(error, answer_error)
    for router in ROUTERS:
        api.include_router(router)
    api.state.routes = [route for part in (api, *ROUTERS) for route in part.routes if isinstance(route, Route)]
    describe(api, locked=settings.api_tokens is not None)
    return api


__all__ = ["WebServer", "create_api", "create_app"]
