"""Weights from the Hugging Face hub; without a network at once from the cache."""

import contextlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator

from huggingface_hub import constants

_SECONDS = 3.0


@contextlib.contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Let the hub's client use only its cache while the hub cannot be reached.

    Otherwise it retries each file for most of a minute.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable()
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
