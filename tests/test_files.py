"""Verified files: truncated ones, others, and downloads from a server on this machine."""

import hashlib
import http.server
import json
import threading

import pytest

from txfm_lite import datasets, files


def test_a_truncated_file_and_another_one(damaged, local_data):
    whole = (local_data / "sc/darmanis_brain/data.csv.gz").read_bytes()
    right = {"sha256": hashlib.sha256(whole).hexdigest(), "bytes": len(whole), "reader": "counts_csv"}
    damaged.manifest("short", whole[:-1000], file="data.csv.gz", **right)
    with pytest.raises(
        files.ChecksumError, match=r"data.csv.gz: it is truncated \(3,660,996 of 3,661,996 bytes\)"
    ):
        datasets.load("short")
    damaged.manifest("other", whole[:-1] + b"x", file="data.csv.gz", **right)
    with pytest.raises(files.ChecksumError, match="its content differs; the manifest says sha256 e281d916"):
        datasets.load("other")


# --- downloads, from a server on this machine -------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content`; understands ranges; breaks off after `cut` bytes once."""

    content, ranges, cut = b"", True, None
    requests: list = []  # noqa: RUF012

    def do_GET(self):
        begin = 0
        asked = self.headers.get("Range")
        type(self).requests.append(asked)
        if asked and self.ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if begin < len(self.content) else 416)
        else:
            self.send_response(200)
        body = self.content[begin:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.cut is not None:
            body, type(self).cut = body[: self.cut], None
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    class Own(Handler):
        requests: list = []  # noqa: RUF012

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    Own.url = f"http://127.0.0.1:{httpd.server_address[1]}/data.h5ad"
    yield Own
    httpd.shutdown()
    httpd.server_close()


CONTENT = bytes(range(256)) * 2000


def test_download_once_then_from_the_cache(damaged, server):
    server.content = CONTENT
    name = damaged.manifest("web", CONTENT, place=False, url=server.url)
    (path,) = datasets.fetch(name)
    assert path.read_bytes() == CONTENT and path.parent == files.cache_directory() / "sc" / "web"
    assert datasets.fetch(name) == [path] and len(server.requests) == 1
    assert not files.missing(name) and not list(path.parent.glob("*.part"))


def test_a_wrong_checksum_is_not_kept(damaged, server):
    server.content = CONTENT[:-1] + b"x"
    name = damaged.manifest("web", CONTENT, place=False, url=server.url)
    with pytest.raises(files.ChecksumError, match="is not data.h5ad"):
        datasets.fetch(name)
    assert files.missing(name) == ["data.h5ad"]
    server.content = CONTENT
    assert datasets.fetch(name)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(damaged, server, ranges):
    server.content, server.cut, server.ranges = CONTENT, 300_000, ranges
    name = damaged.manifest("web", CONTENT, place=False, url=server.url)
    with pytest.raises(files.Unreachable):
        datasets.fetch(name)
    assert files.missing(name) == ["data.h5ad"]
    assert datasets.fetch(name)[0].read_bytes() == CONTENT
    assert server.requests[0] is None and server.requests[1].startswith("bytes=")
    assert int(server.requests[1][6:-1]) > 0


def test_offline_says_what_where_and_how(damaged):
    name = damaged.manifest("web", CONTENT, place=False, url="http://127.0.0.1:9/data.h5ad")
    with pytest.raises(files.Unreachable) as caught:
        datasets.fetch(name)
    text = str(caught.value)
    assert "web: can't download data.h5ad from http://127.0.0.1:9/data.h5ad" in text
    assert str(damaged.data / "sc" / "web" / "data.h5ad") in text and "sc/web/data.h5ad" in text


def test_an_unverified_file_warns_once_and_is_held_to_its_first_content(damaged, server, caplog):
    server.content = CONTENT
    name = damaged.manifest("web", CONTENT, place=False, url=server.url, sha256="unverified", bytes=0)
    (path,) = datasets.fetch(name)
    assert "nobody vouches" in caplog.text
    record = json.loads(path.with_name("data.h5ad.sha256.json").read_text())
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest() and record["url"] == server.url
    caplog.clear()
    datasets.fetch(name)
    assert "nobody vouches" not in caplog.text
    path.write_bytes(CONTENT[:1000])
    with pytest.raises(
        files.ChecksumError, match=r"truncated \(1,000 of 512,000 bytes\); data.h5ad.sha256.json"
    ):
        datasets.fetch(name)
