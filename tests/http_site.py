"""A real HTTP server on this machine whose faults a test can choose."""

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Page:
    """One address: what it serves, and what goes wrong while it does.

    `statuses` are answered first, one a request. `cuts` end a body early, after so many bytes, one a request; after
    `crawls` bytes it goes on with one byte at a time. `hook` is called with the page before each request is answered.
    """

    def __init__(self, body=b"", **options):
        self.body = body
        self.etag = options.get("etag", '"v1"')
        self.ranges = options.get("ranges", True)
        self.honours_if_range = options.get("honours_if_range", True)
        self.statuses = list(options.get("statuses", []))
        self.cuts = list(options.get("cuts", []))
        self.content_type = options.get("content_type", "application/octet-stream")
        self.stated_length = options.get("stated_length")
        self.states_length = options.get("states_length", True)
        self.headers = dict(options.get("headers", {}))
        self.pause = options.get("pause", 0.0)  # seconds before each block
        self.crawls = list(options.get("crawls", []))
        self.stall = options.get("stall", 0)  # that many requests are accepted and never answered
        self.hook = options.get("hook")
        self.queries = []  # what stood behind the question mark, one a request
        self.requests = []  # (status, first byte or None, body bytes sent, headers), in order of their beginnings


class Request:
    """(status, first byte, body bytes sent, headers) of a request whose body is on its way."""

    def __init__(self, status, first, headers):
        self.status, self.first, self.sent, self.headers = status, first, 0, headers

    def __getitem__(self, place):
        return (self.status, self.first, self.sent, self.headers)[place]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        page = self.server.pages.get(path)
        if page is None:
            self.send_error(404)
            self.server.missing.append(self.path)
            return
        page.queries.append(query)
        if page.hook:
            page.hook(page)
        if page.stall:
            page.stall -= 1
            page.requests.append((0, None, 0, dict(self.headers)))
            self.server.closing.wait(60)
            self.close_connection = True
            return
        if page.statuses:
            status = page.statuses.pop(0)
            page.requests.append((status, None, 0, dict(self.headers)))
            self.send_response(status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._serve(page)

    def _serve(self, page):
        first, status = 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = not page.honours_if_range or self.headers.get("If-Range", page.etag) == page.etag
        last = len(page.body)
        if wanted and page.ranges and same:
            first, status = int(wanted[1]), 206
            last = min(last, int(wanted[2]) + 1) if wanted[2] else last
            if first >= len(page.body):
                page.requests.append((416, first, 0, dict(self.headers)))
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(page.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        body = page.body[first:last]
        self.send_response(status)
        self.send_header("Content-Type", page.content_type)
        if page.etag:
            self.send_header("ETag", page.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(page.body)}")
        if page.states_length:
            self.send_header("Content-Length", str(page.stated_length or len(body)))
        for name, value in page.headers.items():
            self.send_header(name, value)
        if not page.states_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            page.requests.append((status, first, 0, dict(self.headers)))
            return
        cut = page.cuts.pop(0) if page.cuts else None
        body = body if cut is None else body[:cut]
        request = Request(status, first, dict(self.headers))
        page.requests.append(request)
        crawl = page.crawls.pop(0) if page.crawls else len(body)
        fast, slow = body[:crawl], body[crawl:]
        blocks = [fast[start : start + 65536] for start in range(0, crawl, 65536)] + [bytes([each]) for each in slow]
        try:
            for number, block in enumerate(blocks):
                pause = page.pause if number * 65536 < crawl else 0.02
                if pause and self.server.closing.wait(pause):
                    return
                request.sent += len(block)  # before the client can have it
                self.wfile.write(block)
        except OSError:
            self.close_connection = True
        if cut is not None or page.stated_length:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that goes away, or is killed, is what these tests are about."""


class Site:
    """The server: `site.add("/a/b.zip", body, ...)` gives the address."""

    def __init__(self):
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.pages, self._server.missing = {}, []
        self._server.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def missing(self):
        return self._server.missing

    def add(self, path, body=b"", **options):
        page = self._server.pages[path] = Page(body, **options)
        page.url = self.url + path
        return page

    def close(self):
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
