"""Which Ray cluster a command joins, and whether it answers: asked before Ray itself waits for it.

Ray waits minutes for a cluster that is gone, and says why on lines that are not ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from queue import Empty, Queue

from recsys.errors import InputError

VARIABLE = "RAY_ADDRESS"
ANSWER_S = 5.0
"""Longest wait for one answer: of a name server, of a port, of what listens there."""
JOIN_S = 60.0
"""Longest wait for a cluster that answers to take this process in."""
REMEDY = (
    f"start the cluster, set {VARIABLE} to one that runs (host:port of its head, or "
    f"ray://host:10001), or to `local` for a Ray of this command's own"
)


def require_answer() -> str | None:
    """Makes sure that the cluster which `ray.init()` would join answers.

    That is the one of `RAY_ADDRESS`, or of the file that `ray start` leaves on the machine.

    Returns:
        What names the cluster, for messages; None where a local Ray will be started.

    Raises:
        InputError: It does not answer, or the address is none.
    """
    address = os.environ.get(VARIABLE, "").strip()
    if VARIABLE in os.environ:  # Ray would take spaces for a part of it
        os.environ[VARIABLE] = address
    if address == "local":
        return None
    if address in ("", "auto"):
        return _require_found(address)
    where = f"{VARIABLE}={address}"
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"{where}: this is the address of a dashboard, which takes `ray job submit`, and no "
            f"program joins a cluster there; {REMEDY}"
        )
    scheme, sign, rest = address.rpartition("://")
    if not sign or scheme == "ray":
        _require_ray(where, rest.partition("?")[0])
    return where


def _require_found(address: str) -> str | None:
    """Looks for a cluster of this machine, as Ray does where no address or `auto` is given."""
    from ray._private import services, utils

    file = utils.get_ray_address_file(None)
    try:
        cluster = services.canonicalize_bootstrap_address(address or None)
    except ConnectionError:
        raise InputError(
            f"{VARIABLE}={address}: no Ray runs on this machine (`ray start --head` starts one); "
            f"{REMEDY}"
        ) from None
    except ValueError:
        raise InputError(
            f"{file}: it names no address of a cluster, which is host:port (`ray stop` removes "
            f"that file); {REMEDY}"
        ) from None
    if cluster is None:
        return None
    where = f"{VARIABLE}={address}: {cluster}" if address else cluster
    if services.find_bootstrap_address(None) is not None:
        where = f"{where}, which {file} names (`ray stop` removes that file)"
    _require_ray(where, cluster)
    return where


def _require_ray(where: str, address: str) -> None:
    host, sign, port = address.rpartition(":")
    if not sign or not host or not (port.isdigit() and 0 < int(port) < 65536):
        raise InputError(f"{where}: no address of a cluster, which is host:port; {REMEDY}")
    problem = _problem(host.strip("[]"), int(port))
    if problem:
        raise InputError(f"{where}: {problem}; {REMEDY}")


def _problem(host: str, port: int) -> str | None:
    """What is wrong with a place where Ray should be; None where something answers as Ray does."""
    resolved: Queue[str] = Queue()

    def resolve() -> None:
        try:
            socket.getaddrinfo(host, port)
            resolved.put("")
        except OSError as error:
            resolved.put(f"the name {host!r} is not known ({error.strerror})")
        except UnicodeError as error:  # an empty part, or one of more than 63 characters
            resolved.put(f"{host!r} can be no name of a host ({error})")

    # A name server that is silent can hold its caller for a minute.
    threading.Thread(target=resolve, daemon=True).start()
    try:
        unknown = resolved.get(timeout=ANSWER_S)
    except Empty:
        return f"looking up the name {host!r} took more than {ANSWER_S:.0f} s"
    if unknown:
        return unknown
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except TimeoutError:
        return f"nothing answers there within {ANSWER_S:.0f} s"
    except OSError as error:
        return f"nothing listens there ({error.strerror})"
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return None  # it would take Ray's certificates to ask on
    return None if _speaks_grpc(host, port) else "what listens there is not Ray"


def _speaks_grpc(host: str, port: int) -> bool:
    """Whether gRPC's own health check is answered, be it by a refusal: Ray's servers all do."""
    import grpc

    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    with grpc.insecure_channel(target, options) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            check(b"", timeout=ANSWER_S)
        except grpc.RpcError as error:
            by_another_server = "http2 header" in (error.details() or "")
            return error.code() not in silent and not by_another_server
    return True


@contextlib.contextmanager
def joining(where: str | None) -> Iterator[None]:
    """Around `ray.init`: what it says of a cluster, or that it takes too long, is one line.

    Raises:
        InputError: A cluster does not take this process in.
        RuntimeError: A local Ray does not start.
    """
    try:
        with _time_limit(JOIN_S):
            yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if where is None:
            raise RuntimeError(f"Ray did not start: {reason}") from error
        raise InputError(f"{where}: joining the cluster failed: {reason}; {REMEDY}") from error


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError after some time; only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"it took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
