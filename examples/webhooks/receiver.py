"""Receives webhooks of pg_credits: verifies them as Standard Webhooks says, and prints what arrived.

    python3 receiver.py PORT SECRET     PORT 0 takes a free one; SECRET as passed to credits.create_webhook_endpoint

A receiver of yours would remember webhook-id, since an event may arrive more than once, answer at once, and work later. There are
libraries for many languages at https://www.standardwebhooks.com; this is all that they do, with Python's own.
"""

import base64
import hashlib
import hmac
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 5 * 60
BODY_BYTES_MAX = 1024 * 1024


def is_genuine(headers, body: bytes, secret: str) -> bool:
    """Whether somebody who knows the secret signed this body under this id a moment ago."""
    event_id, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent_at.isdecimal() or abs(time.time() - int(sent_at)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{event_id}.{sent_at}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # While a secret is being rotated there are two signatures.
    signatures = [part.removeprefix("v1,") for part in headers.get("webhook-signature", "").split(" ") if part.startswith("v1,")]
    return any(hmac.compare_digest(signature, expected) for signature in signatures)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    secret = ""

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if not 0 <= length <= BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_genuine(self.headers, body, self.secret):
            return self.answer(401)
        lines = [f"{self.command} {self.path}", *(f"{name.lower()}: {value}" for name, value in self.headers.items()), "", body.decode()]
        print("\n".join(lines), end="\n\n", flush=True)
        self.answer(204)

    def answer(self, status: int):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Receiver.secret = sys.argv[2]
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()
