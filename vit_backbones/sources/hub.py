"""Weights from the Hugging Face hub; without a network at once from the cache."""

import contextlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator

from huggingface_hub import constants

_SECONDS = 3.0


@contextlib.contextmanager
def offline_if_unreachable(downloads: bool = True) -> Iterator[None]:
    """Let the hub's client download from a hub that answers, and else use only its cache.

    The client would retry each file for most of a minute.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or (downloads and not _reachable())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable() -> bool:
    if urllib.request.getproxies():
        return True  # the client goes through the proxy, a plain connection would not
    host = urllib.parse.urlsplit(constants.ENDPOINT)
    port = host.port or (80 if host.scheme == 'http' else 443)
    try:
        socket.create_connection((host.hostname, port), timeout=_SECONDS).close()
    except OSError:
        return False
    return True
