"""The endpoint on Ray Serve: `serve run recsys.serve.app:build bundle=RUN`, or `recsys serve`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from recsys.bundle.contents import read_config
from recsys.bundle.versions import find_bundle
from recsys.cluster import connect, gpus_compute, num_cpus, num_gpus, tell_of_gpus
from recsys.config.access import read_reference
from recsys.config.run import RunConfig, ServeConfig
from recsys.config.text import explain
from recsys.errors import InputError
from recsys.serve.encoder import LiveEncoder
from recsys.serve.endpoint import Endpoint, EventsHere, Source, address_of, log_address
from recsys.serve.http.problems import RETRY_AFTER_S
from recsys.serve.http.tokens import Tokens
from recsys.serve.ingress import READY, has_haproxy, prepare_ingress, tell_of_ingress
from recsys.serve.terminal import follow_versions

logger = logging.getLogger(__name__)

APP_NAME = "recsys"
BESIDE_WAITING = 64
"""Requests that a replica takes in beside `serve.max_waiting`, so that it can refuse them at once,
and answer probes."""
QUIET = LoggingConfig(log_level="ERROR", enable_access_log=False)


class BuildArgs(ServeConfig):
    """What `serve run recsys.serve.app:build key=value …` or a Serve config file may give.

    That is the bundle, and settings of `serve` that take the place of those of the bundle.
    """

    bundle: str
    """A run folder, its `bundles` folder or one version's; a path or URI."""


def build(args: Mapping[str, object]) -> serve.Application:
    """The Serve application of a bundle.

    Given a run folder, the replicas follow what is published there; given one version's folder,
    they keep to it.

    Args:
        args: The fields of `BuildArgs`.

    Raises:
        InputError: An argument is wrong or there is no bundle.
    """
    return application(*read_args(args))


def application(source: Source, settings: ServeConfig) -> serve.Application:
    """The Serve application of a source of versions; see `read_args`."""
    deployment = serve.deployment(
        serve.ingress()(Endpoint),
        name=Endpoint.__name__,
        max_ongoing_requests=settings.max_waiting + BESIDE_WAITING,
        max_queued_requests=settings.max_queued_requests,
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_AFTER_S),
        logging_config=QUIET,
        **number_of_replicas(settings),
    )
    # Tokens are read where the application is built; each replica sees where Serve listens.
    tokens = Tokens.of(settings.model_copy(update={"host": "127.0.0.1"}))
    events = EventsHere.make(log_address(source.folder, settings.events))
    encoders = _encoders(source.folder, settings, events) if settings.encoders else None
    return deployment.bind(source, settings, events, tokens, encoders)


def _encoders(folder: str, settings: ServeConfig, events: EventsHere) -> serve.Application:
    """The deployment that encodes videos; it takes what CPU time the replicas leave."""
    deployment = serve.deployment(
        LiveEncoder,
        name=LiveEncoder.__name__,
        num_replicas=settings.encoders,
        ray_actor_options={"num_cpus": 0, "num_gpus": settings.encoder_gpus},
        logging_config=QUIET,
    )
    return deployment.bind(folder, settings, events)


def read_args(args: Mapping[str, object]) -> tuple[Source, ServeConfig]:
    """Where the versions to serve are, and the settings that they are served with.

    Raises:
        InputError: An argument is wrong or there is no bundle.
    """
    try:
        wanted = BuildArgs.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        where = f"{name}: {message.lower()}" if name else message
        raise InputError(f"{where}; give bundle=PATH and perhaps replicas=N") from None
    given = wanted.model_dump(exclude_unset=True, exclude={"bundle"})
    for name in given.keys() & {"host", "port"}:
        raise InputError(
            f"{name}: Ray Serve listens where its own `http_options` say; leave {name} out"
        )
    source = Source.of(wanted.bundle)
    published = read_config(source.folder).model_dump()
    try:
        served = {**published, "serve": {**published["serve"], **given}}
        return source, RunConfig.model_validate(served).serve
    except ValidationError as error:  # of settings that do not fit the bundle's
        raise InputError(explain(error, RunConfig)) from None


def number_of_replicas(settings: ServeConfig) -> dict[str, object]:
    """Serve's own options for how many replicas there are: fixed, or by the load.

    >>> number_of_replicas(ServeConfig(replicas=2))
    {'num_replicas': 2}
    """
    if settings.max_replicas is None:
        return {"num_replicas": settings.replicas}
    by_load = {
        "min_replicas": settings.replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.target_ongoing_requests,
    }
    return {"autoscaling_config": by_load}


def require_as_published(bundle: str, config: RunConfig, names: Iterable[str]) -> None:
    """Refuses settings that a server would have to take from the bundle, where they differ.

    Args:
        bundle: As in `BuildArgs`.
        config: What the user asks for.
        names: Settings that the user gave, such as `rerank.page`; those of `serve` are obeyed.

    Raises:
        InputError: One differs, or there is no bundle.
    """
    published = read_config(find_bundle(bundle)).model_dump()
    wanted = config.model_dump()
    for name in names:
        if name == "run" or name.partition(".")[0] == "serve":
            continue
        there, asked = _setting(published, name), _setting(wanted, name)
        if there != asked:
            raise InputError(
                f"{name}={asked}: the bundle was published with {there}, and a server obeys "
                "serve.* alone; run the stages again with it (`recsys run`), or leave it out"
            )


def _setting(tree: object, name: str) -> object:
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


@contextlib.contextmanager
def running(
    bundle: str, *, host: str = "127.0.0.1", port: int = 8000, **settings: object
) -> Iterator[str]:
    """Serves a bundle as long as the context lasts; gives the address.

    Args:
        bundle: As in `BuildArgs`.
        host: Address to listen on; 0.0.0.0 is all of them.
        port: 0 takes any free one.
        settings: Others of `serve`, in place of the bundle's, such as `replicas=2`.

    Raises:
        InputError: The bundle is wrong, the port is taken, the cluster is too small.
    """
    source, wanted = read_args({"bundle": bundle, **settings})
    Tokens.of(wanted.model_copy(update={"host": host}))  # refuses what is open to the world
    app = application(source, wanted)
    port = free_port(host, port)
    ours = not ray.is_initialized()
    obstacle = prepare_ingress()
    connect()
    try:
        _require_cpus(wanted.replicas)
        _require_gpus(wanted)
        _require_no_serve()
        try:
            _deploy(app, host, port)
            tell_of_ingress(obstacle)
            _tell_of_files(source.folder, wanted)
            yield address_of(host, port)
        finally:
            _quietly(serve.shutdown)
    finally:
        if ours:
            _quietly(ray.shutdown)


def serve_forever(
    bundle: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    announce: Callable[[str], None],
    tell: Callable[[str], None],
    **settings: object,
) -> None:
    """Serves a bundle until Ctrl-C or SIGTERM.

    Args:
        bundle: As in `BuildArgs`.
        host: As in `running`.
        port: As in `running`.
        announce: Called with the address once requests are answered.
        tell: Called with a line when another version serves, or one is refused.
        settings: As in `running`.

    Raises:
        InputError: As `running` does.
    """
    with running(bundle, host=host, port=port, **settings) as address:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        announce(address)
        wanted = read_args({"bundle": bundle, **settings})[1]
        tokens = wanted.read_token and read_reference(wanted.read_token, "serve.read_token")
        token = tokens.split()[0] if tokens else None
        follow_versions(address, token, tell, every_s=wanted.watch_s, stop=stop)


def ask_once(address: str, *, k: int = 10) -> dict[str, Any]:
    """Asks a running endpoint for one known user's recommendations, through HTTP."""
    with urllib.request.urlopen(f"{address}/v1/users?limit=1", timeout=30) as answer:
        user_ids = json.load(answer)["user_ids"] or ["nobody"]
    request = urllib.request.Request(
        f"{address}/v1/recommend",
        data=json.dumps({"user_id": user_ids[0], "k": k}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        recommended: dict[str, Any] = json.load(answer)
    return recommended


def free_port(host: str, port: int) -> int:
    """The port itself, or any free one for 0.

    Raises:
        InputError: It is taken, or the host is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise InputError(
            f"{host}:{port}: cannot listen there ({error.strerror}); "
            "choose another with serve.port=… or --port, 0 for any free one"
        ) from None


def _require_cpus(replicas: int) -> None:
    there = num_cpus()
    if replicas > there:
        raise InputError(
            f"serve.replicas={replicas}: each takes one CPU and the cluster has {there}; "
            f"set serve.replicas to at most {there} or add nodes"
        )
    free = int(ray.available_resources().get("CPU", 0))
    if replicas > free:
        logger.warning("serving needs %d CPUs and %d are free: waiting for them", replicas, free)


def _require_gpus(settings: ServeConfig) -> None:
    """Refuses encoders that can never all have their share, or have no use for it.

    Says so where they may have to wait.
    """
    share = settings.encoder_gpus
    if not settings.encoders or not share:
        return
    there = num_gpus()
    room = there // share if share >= 1 else there * int(1 / share)
    if settings.encoders > room:
        raise InputError(
            f"serve.encoder_gpus={share:g}: each of {settings.encoders} encoders takes so much of "
            f"one GPU, or so many, and the cluster has {there}, room for {room:g}; set it to 0, "
            "lower serve.encoders or add nodes"
        )
    if not gpus_compute():
        raise InputError(
            f"serve.encoder_gpus={share:g}: on the nodes with a GPU PyTorch sees none, as its CPU "
            "build; pip install 'recsys[gpu]' there, or set it to 0"
        )
    tell_of_gpus("serve", settings.encoders, share)


def _tell_of_files(folder: str, settings: ServeConfig) -> None:
    """Logs that HAProxy carries the catalogue's video files, where nobody else was named for it."""
    has_files = read_config(folder).data.video_columns.uri is not None
    if has_files and settings.files and not settings.files_at and has_haproxy():
        logger.info(
            "local video files pass through HAProxy, which makes all answers wait where many are "
            "watched; then have another server send them: serve.files_at={FOLDER: ADDRESS}"
        )


def _require_no_serve() -> None:
    """There is one Serve a cluster, and it listens at one address; ours would end the others'."""
    status = serve.status()
    if status.proxies or status.applications:
        raise InputError(
            "Ray Serve already runs on this cluster; add the bundle to it with `serve deploy` or "
            "`serve run recsys.serve.app:build bundle=…`, or end it with `serve shutdown`"
        )


def _quietly(stop: Callable[[], None]) -> None:
    """Serve's controller kills itself when it is told to stop, and Ray prints that as a failure."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stop()


def _deploy(app: serve.Application, host: str, port: int) -> None:
    """Starts Serve and waits until the application runs."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    _start_serve(host, port)
    try:
        serve.run(app, name=APP_NAME, route_prefix="/")
    except RuntimeError:
        reason = _input_error_of_replica()
        if reason is None:
            raise
        raise InputError(reason) from None


def _start_serve(host: str, port: int) -> None:
    """Starts Serve and waits for its proxies, each of which it kills after a while and tries anew.

    Raises:
        InputError: One was killed, or was not ready after a minute.
    """
    try:
        serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
    except (RayActorError, TimeoutError):
        raise InputError(
            "the proxies of Ray Serve were not ready in time: this machine, or another of the "
            f"cluster, is too busy; try again, or start Ray on its nodes with {READY}=120 (seconds "
            "that a proxy may take)"
        ) from None


def _input_error_of_replica() -> str | None:
    """What was wrong with the input of a replica that did not start; Serve keeps its traceback."""
    application = serve.status().applications[APP_NAME]
    texts = [application.message, *(d.message for d in application.deployments.values())]
    match = re.search(r"InputError: (.+)", "\n".join(texts))
    return match.group(1) if match else None
