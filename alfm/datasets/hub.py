"""Downloads: what is in the local cache loads without a network, and a failure is one plain sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator

from alfm.errors import UserError


@contextlib.contextmanager
def from_hub(
    model: str, licence_page: str | None = None, hint: str = "model.checkpoint=PATH", what: str = "weights of"
) -> Iterator[None]:
    """Around a download: no endless retries where the hub cannot be reached, and one plain sentence on failure.

    Weights that are in the hub's local cache load all the same. `UserError` names the model, the reason, the
    file option, and for gated weights the licence page and `HF_TOKEN`.
    """
    from huggingface_hub import constants

    unreachable = _unreachable(constants.ENDPOINT)
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or unreachable is not None
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)  # the libraries report each failed attempt; the reason is given once, below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, TypeError, AssertionError, MemoryError):  # not about the download
        raise
    except Exception as error:
        reason = unreachable or ("HF_HUB_OFFLINE is set" if offline else first_line(error))
        text = f"the {what} {model} could not be had ({reason})"
        gated = re.search(r"[Gg]ated|\b40[13]\b", " ".join(_causes(error))) is not None
        if gated or licence_page:
            page = licence_page or f"https://huggingface.co/{model}"
            text += f"; accept their licence ({page}) and put your token in HF_TOKEN, or"
        else:
            text += ":"
        raise UserError(
            f"{text} put {'them' if what.startswith('weights') else 'it'} on disk and give {hint}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.disable(disabled)


def _unreachable(endpoint: str) -> str | None:
    """Why the hub's host cannot be reached, as far as the name service tells at once; None when it may be."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return None  # the proxy resolves names
    host = endpoint.split("//")[-1].split("/")[0].split(":")[0]
    try:
        socket.getaddrinfo(host, 443)
        return None
    except OSError:
        return f"no network: the host {host} is not found"


def _causes(error: BaseException) -> list[str]:
    chain: list[str] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 10:
        chain.append(f"{type(current).__name__}: {current}")
        current = current.__cause__ or current.__context__
    return chain


def first_line(error: BaseException) -> str:
    """The first line of a message, or the kind of error when there is none."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
