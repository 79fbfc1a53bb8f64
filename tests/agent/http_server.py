#!/usr/bin/env python3
"""A loopback server that misbehaves on request: hub, plain files and package index for the tests here.

Prints "PORT PORT" once it listens on both, serves until its standard input closes. The first part of the
path says how a file is served; GET /log returns the requests since the last such call as JSON."""
import hashlib
import http.server
import io
import json
import os
import sys
import threading
import time
import zipfile

SIZE = 600000
log, seen, lock = [], {}, threading.Lock()


def content(version):
    """The same bytes as model_server.h makes."""
    return b"GGUF\x03\0\0\0" + bytes(((i * i >> 7) + version) & 255 for i in range(8, SIZE))


FILES = {1: content(1), 2: content(2)}
PARTS = [FILES[1][:250000], FILES[1][250000:500000], FILES[1][500000:]]
missing = set()  # packages that the index does not have at the moment


def wheel(name, data):
    out, dist = io.BytesIO(), name.replace("-", "_")
    info = f"{dist}-1.0.dist-info/"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(f"{dist}/__init__.py", "")
        z.writestr(f"{dist}/data/part.bin", data)
        z.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "RECORD", "")
    return out.getvalue()


WHEELS = {f"weft-test-part{i + 1}": wheel(f"weft-test-part{i + 1}", p) for i, p in enumerate(PARTS)}
WHEELS["weft-test-whole"] = wheel("weft-test-whole", FILES[1])
WHEELS["weft-test-wrong"] = wheel("weft-test-wrong", FILES[2])
WHEELS["weft-test-big"] = wheel("weft-test-big", FILES[1] + b"more")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.wfile.flush()
        self.close_connection = True

    def file(self, data, etag='"v1"', ranges=True, upto=None, length=None, trust=False):
        """Serves data; `upto` bytes of what was asked for, then hangs up."""
        start, asked = 0, self.headers.get("Range", "")
        fresh = trust or self.headers.get("If-Range", etag) == etag
        if ranges and asked.startswith("bytes=") and fresh:
            start = int(asked[6:].split("-")[0])
            if start >= len(data):
                return self.answer(416, Content_Range=f"bytes */{len(data)}")
        body = data[start:]
        self.send_response(206 if start else 200)
        if etag:
            self.send_header("ETag", etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body if upto is None else body[:upto])
        if upto is not None or length is not None:
            self.hang_up()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/log":
            with lock:
                text = json.dumps(log)
                log.clear()
                seen.clear()
            return self.answer(200, text.encode())
        if path == "/missing":
            missing.clear()
            missing.update(query.split(",") if query else [])
            return self.answer(200)
        with lock:
            log.append({"path": self.path, "port": self.server.server_port,
                        "range": self.headers.get("Range", ""), "if_range": self.headers.get("If-Range", ""),
                        "token": self.headers.get("Authorization", "")})
            seen[path] = seen.get(path, 0) + 1
            count = seen[path]
        self.serve(path.split("/")[1], path, count)

    def serve(self, how, path, count):
        one, two = FILES[1], FILES[2]
        if how == "ok":
            self.file(one)
        elif how == "noetag":
            self.file(one, etag=None, upto=200000 if count == 1 else None)
        elif how == "modified":  # Last-Modified only
            self.send_response(200)
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.send_header("Content-Length", str(len(one)))
            self.end_headers()
            self.wfile.write(one[:200000])
            self.hang_up()
        elif how == "drop":  # a third of the rest each time, then hangs up
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            rest = len(one) - start
            self.file(one, upto=rest // 3 if rest > 50000 else None)
        elif how == "norange":  # breaks once, then sends all again
            self.file(one, ranges=False, upto=200000 if count == 1 else None)
        elif how == "neverwhole":
            self.file(one, ranges=False, upto=200000)
        elif how == "change":  # another version behind the same name
            self.file(one if count == 1 else two, etag=f'"v{min(count, 2)}"', upto=200000 if count == 1 else None)
        elif how == "changelie":  # the same, by a server that ignores If-Range
            self.file(one if count == 1 else two, etag=f'"v{min(count, 2)}"', upto=200000 if count == 1 else None,
                      trust=True)
        elif how == "wrongstart":  # says 206, starts elsewhere
            if count == 2:
                return self.answer(206, one, ETag='"v1"', Content_Range=f"bytes 0-{len(one) - 1}/{len(one)}")
            self.file(one, upto=200000 if count == 1 else None)
        elif how == "toolong":  # promises more than there is; asked for the rest, it says where the end is
            self.file(one, length=len(one) + 100)
        elif how == "stall" and count == 1:
            self.file(one, upto=200000, length=len(one))
            self.close_connection = False
            time.sleep(3)
        elif how == "stall":
            self.file(one)
        elif how == "unsatisfied":
            self.answer(416, Content_Range=f"bytes */{len(one)}")
        elif how == "flaky":
            self.file(one) if count > 2 else self.answer(503, b"busy")
        elif how == "status":
            self.answer(int(path.split("/")[2]), b"<html>GGUF no such thing</html>")
        elif how == "text":
            self.answer(200, b"<html>no model here</html>")
        elif how == "empty":
            self.answer(200)
        elif how == "redirect":
            self.answer(302, b"elsewhere", Location="/ok/" + path.split("/")[-1])
        elif how == "loop":
            self.answer(302, Location=path)
        elif how == "simple":
            name = path.split("/")[2]
            if name not in WHEELS or name in missing:
                return self.answer(404)
            file = f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
            digest = hashlib.sha256(WHEELS[name]).hexdigest()
            self.answer(200, f'<a href="/wheels/{file}#sha256={digest}">{file}</a>'.encode(),
                        Content_Type="text/html")
        elif how == "wheels":
            self.answer(200, WHEELS[path.split("/")[2].split("-")[0].replace("_", "-")])
        else:
            self.hub(path)

    def hub(self, path):
        digest = hashlib.sha256(FILES[1]).hexdigest()
        entry = {"type": "file", "size": SIZE, "lfs": {"oid": digest, "size": SIZE}}
        trees = {"one": ["only.gguf", "README.md"], "many": ["m-Q2_K.gguf", "sub dir/m-q4_k_m.gguf"],
                 "unclear": ["a.gguf", "b.gguf"], "none": ["README.md"]}
        if path.startswith("/api/models/maker/"):
            repo = path.split("/")[4]
            if repo == "garbage":
                return self.answer(200, b"<html>")
            if repo not in trees:
                return self.answer(401)
            return self.answer(200, json.dumps([{**entry, "path": p} for p in trees[repo]]).encode())
        if "/resolve/main/" in path:
            other = self.server.other_port
            return self.answer(302, Location=f"http://127.0.0.1:{other}/ok/file?signed=secret")
        self.answer(404)


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients that hang up are what this is about


servers = [Server(("127.0.0.1", 0), Handler) for _ in range(2)]
for s, other in zip(servers, reversed(servers)):
    s.daemon_threads = True
    s.other_port = other.server_port
    threading.Thread(target=s.serve_forever, daemon=True).start()
print(*(s.server_port for s in servers), flush=True)
sys.stdin.read()
os._exit(0)
