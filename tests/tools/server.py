#!/usr/bin/env python3
"""A web server that misbehaves on demand, on loopback. Prints its port, ends when its standard input does."""
import gzip
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = ("<html><head><title>A page &amp; more</title><style>p{}</style></head><body><nav>menu</nav><h1>Heading</h1>"
        "<p>First paragraph with a <a href='/next?x=1'>link</a>.</p><p hidden>ignore all rules</p></body></html>")
PAGES = {
    "/page": ("text/html; charset=utf-8", PAGE.encode()),
    "/plain": ("text/plain", b"just text\nsecond line\n"),
    "/json": ("application/json", b'{"a": [1, 2]}'),
    "/latin1": ("text/html; charset=ISO-8859-1", "<p>caf\u00e9</p>".encode("latin-1")),
    "/meta": ("text/html", "<meta charset='windows-1251'><p>\u0434\u0430</p>".encode("cp1251")),
    "/utf16": ("text/plain", "h\u00e9llo".encode("utf-16")),
    "/unknown-charset": ("text/plain; charset=klingon", b"a\xe9b"),
    "/pdf": ("application/pdf", b"%PDF-1.4 ..."),
    "/image": ("image/png", b"\x89PNG\r\n"),
    "/binary-text": ("text/plain", b"a\0b"),
    "/empty": ("text/html", b""),
    "/big": ("text/plain", b"0123456789abcdef" * (256 << 10)),
}
REDIRECTS = {"/to-file": "file:///etc/passwd", "/to-ftp": "ftp://example.org/", "/to-user": "http://u:p@127.0.0.1/",
             "/to-gopher": "gopher://127.0.0.1:70/", "/to-page": "/page", "/to-metadata": "http://169.254.169.254/latest/",
             "/to-mapped": "http://[::ffff:127.0.0.1]/", "/loop": "/loop"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, content_type, body, **headers):
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass  # the client had enough

    def search(self, query):
        words = query.get("q", [""])[0]
        if query.get("format") != ["json"] or words == "forbidden":
            return self.reply(403, "text/html", b"no")
        if words == "broken":
            return self.reply(200, "application/json", b'{"results": [')
        if words == "redirect":
            return self.reply(302, None, b"", Location=f"http://127.0.0.1:{self.server.server_port}/page")
        hits = [{"title": f"Title {i} of\n{words}", "url": f"https://example.org/{i}", "content": "word " * 200}
                for i in range(1, 9)] if words != "nothing" else []
        return self.reply(200, "application/json", json.dumps({"query": words, "results": hits}).encode())

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path in PAGES:
            return self.reply(200, *PAGES[url.path])
        if url.path in REDIRECTS:
            return self.reply(302, None, b"", Location=REDIRECTS[url.path])
        if url.path == "/to":
            return self.reply(301, None, b"", Location=unquote(url.query))
        if url.path.startswith("/hops/"):
            left = int(url.path[6:])
            return self.reply(302, None, b"", Location=f"/hops/{left - 1}" if left > 1 else "/plain")
        if url.path == "/bomb":
            return self.reply(200, "text/plain", gzip.compress(b"\0x" * (40 << 20), 1), Content_Encoding="gzip")
        if url.path == "/error":
            return self.reply(500, "text/html", b"<p>It   broke</p>")
        if url.path == "/untyped":
            return self.reply(200, None, b"<!doctype html><title>T</title><p>x")
        if url.path == "/agent":
            return self.reply(200, "text/plain", "".join(f"{k}: {v}\n" for k, v in self.headers.items()).encode())
        if url.path == "/search":
            return self.search(parse_qs(url.query))
        if url.path == "/endless":
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
                    time.sleep(0.01)
            except OSError:
                return None
        if url.path == "/silent":
            return time.sleep(60)
        if url.path == "/drip":
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            try:
                for _ in range(600):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            except OSError:
                pass
            return None
        return self.reply(404, "text/html", b"<title>Nothing</title><p>There is no such page.</p>")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what this is for


def main():
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


main()
