"""An RTSP camera that refuses every password."""

import socketserver
import threading

from tests.resource import Resource

_ANSWER = b'RTSP/1.0 401 Unauthorized\r\nCSeq:%s\r\nWWW-Authenticate: Basic realm="camera"\r\n\r\n'


class RefusingCamera(Resource):
    """Listens on `port` of this machine, and counts the `logins` that were tried."""

    def __init__(self) -> None:
        self.logins = 0
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                """Answer every request alike; an empty line ends it."""
                number = b""
                for line in self.rfile:
                    key, _, value = line.strip().partition(b":")
                    if key.lower() == b"cseq":
                        number = value
                    camera.logins += key.lower() == b"authorization"
                    if not key:
                        self.wfile.write(_ANSWER % number)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
