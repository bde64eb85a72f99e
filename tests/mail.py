"""A mail server of the standard library's means, on loopback: it takes what it is sent and keeps it."""

from __future__ import annotations

import email
import json
import socketserver
import threading
from email.message import Message
from types import TracebackType


class MailServer(socketserver.ThreadingTCPServer):
    """Receives mail while it is entered; ``received`` holds each message."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.received: list[Message] = []

    def __enter__(self) -> MailServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.shutdown()
        self.server_close()

    @property
    def connection(self) -> str:
        """Airflow's connection to it."""
        extra = {"disable_tls": True, "disable_ssl": True}
        host, port = self.server_address[:2]
        return json.dumps({"conn_type": "smtp", "host": str(host), "port": port, "extra": extra})


def text_of(message: Message) -> str:
    """Return the text of all parts of a message."""
    parts = (part.get_payload(decode=True) for part in message.walk() if not part.is_multipart())
    return "\n".join(part.decode() for part in parts if isinstance(part, bytes))


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 ready")
        for line in self.rfile:
            command = line.decode().strip().upper()
            if command == "DATA":
                self._say("354 go on")
                lines = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                self.server.received.append(email.message_from_string("".join(lines)))
            self._say("221 bye" if command == "QUIT" else "250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
