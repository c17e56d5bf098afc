"""Run the proxy: one process, JSON lines on stderr, and an end that lets open requests finish."""

import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import ConfigError
from ..extras import require

IDLE = 75  # seconds that a connection is kept: longer than load balancers keep theirs, or requests would meet a closed one
GRACE = 30  # seconds that open requests have after SIGTERM


class JsonLines(logging.Formatter):
    """A log record as one line of JSON; no text and no key is ever in one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)), "level": record.levelname.lower()}
        line |= {"event": record.getMessage()} | getattr(record, "facts", {})
        if record.exc_info and record.exc_info[2] is not None:
            last = record.exc_info[2]
            while last.tb_next is not None:
                last = last.tb_next
            line["where"] = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
        return json.dumps(line)


def log_to_stderr() -> None:
    """Log in JSON lines, the server's own warnings too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("compatlearn.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def run(app: Any, host: str, port: int, begun: Callable[[str], None], *, grace: int = GRACE) -> None:
    """Serve until SIGTERM or Ctrl-C; then nothing new is accepted, and what is open is answered.

    Args:
        app: of `create_app`.
        host: address to listen at.
        port: to listen at; 0 takes a free one.
        begun: called with the address before the first request.
        grace: seconds that open requests have at the end.

    Raises:
        ConfigError: the address cannot be listened at.
    """
    uvicorn = require("uvicorn")
    if not 0 <= port <= 65535:
        raise ConfigError(f"a port is from 0 to 65535; got {port}")
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror or error}; take another host or port") from error
    with listening:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=grace,
            server_header=False,
            lifespan="on",
        )
        begun(address)
        with suppress(KeyboardInterrupt):  # the signal that ended it, once everything open is answered
            uvicorn.Server(config).run(sockets=[listening])
