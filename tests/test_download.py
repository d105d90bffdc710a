"""The downloader against a local server: resume, restart, checksums, and what a fault leaves on disk."""

import hashlib
import http.server
import io
import re
import stat
import threading
import zipfile

import pytest

pytest.importorskip("tqdm")
from cwic_lab import download

CONTENT = bytes(range(256)) * 1200  # 300 kB
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; breaks off the first `breaks` answers after a third; keeps what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/photos.zip": CONTENT}
        self.ranges = True
        self.breaks = 0
        self.requests = []

    def url(self, name="photos.zip"):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        if self.path not in self.server.files:
            return self.send_error(404)
        content = self.server.files[self.path]
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else None
        if first is not None and first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(200 if first is None else 206)
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        body = content[first or 0 :]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 3]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_whole_download(server, tmp_path):
    path = download.download(server.url(), tmp_path / "new folder" / "photos.zip", MD5)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["photos.zip"]
    assert server.requests == [("/photos.zip", None)]


def test_interrupted_download_leaves_a_part_and_the_next_call_continues(server, tmp_path):
    server.breaks = 1
    path = tmp_path / "photos.zip"
    with pytest.raises(download.DownloadError, match="run again"):
        download.download(server.url(), path, MD5, attempts=1)
    assert not path.exists()
    assert (tmp_path / "photos.zip.part").read_bytes() == CONTENT[:102400]
    download.download(server.url(), path, MD5, attempts=1)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/photos.zip", None), ("/photos.zip", "bytes=102400-")]


def test_interruptions_are_taken_up_within_one_call(server, tmp_path):
    server.breaks = 2
    download.download(server.url(), tmp_path / "photos.zip", MD5)
    assert (tmp_path / "photos.zip").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=102400-", "bytes=170666-"]


def test_server_that_ignores_range_makes_it_start_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "photos.zip.part").write_bytes(b"something else" * 10)
    download.download(server.url(), tmp_path / "photos.zip", MD5, attempts=1)
    assert (tmp_path / "photos.zip").read_bytes() == CONTENT
    assert server.requests == [("/photos.zip", "bytes=140-")]


def test_part_that_is_already_whole(server, tmp_path):
    (tmp_path / "photos.zip.part").write_bytes(CONTENT)
    download.download(server.url(), tmp_path / "photos.zip", MD5, attempts=1)
    assert (tmp_path / "photos.zip").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "photos.zip.part").write_bytes(CONTENT + b"more")
    download.download(server.url(), tmp_path / "photos.zip", MD5, attempts=2)
    assert (tmp_path / "photos.zip").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    (tmp_path / "photos.zip.part").write_bytes(b"not the beginning")
    with pytest.raises(download.ChecksumError, match="md5:"):
        download.download(server.url(), tmp_path / "photos.zip", MD5)
    assert list(tmp_path.iterdir()) == []


def test_whole_file_on_disk_asks_nothing_of_the_server(server, tmp_path):
    path = tmp_path / "photos.zip"
    path.write_bytes(CONTENT)
    assert download.download(server.url(), path, "sha256:" + hashlib.sha256(CONTENT).hexdigest()) == path
    assert server.requests == []


def test_other_file_on_disk_is_refused_and_kept(server, tmp_path):
    path = tmp_path / "photos.zip"
    path.write_bytes(b"somebody's own")
    with pytest.raises(download.ChecksumError, match="remove it"):
        download.download(server.url(), path, MD5)
    assert path.read_bytes() == b"somebody's own"


def test_server_says_no(server, tmp_path):
    with pytest.raises(download.DownloadError, match="404"):
        download.download(server.url("absent.zip"), tmp_path / "photos.zip", MD5)
    assert len(server.requests) == 1  # asking again would not help
    assert list(tmp_path.iterdir()) == []


def test_no_server(server, tmp_path):
    url = server.url()
    server.server_close()
    with pytest.raises(download.DownloadError, match="run again"):
        download.download(url, tmp_path / "photos.zip", MD5, attempts=1)


def test_only_http_and_known_checksums(tmp_path):
    with pytest.raises(ValueError, match="http"):
        download.download("file:///etc/hostname", tmp_path / "x", MD5)
    (tmp_path / "y").write_bytes(b"y")
    with pytest.raises(ValueError, match="sha256"):
        download.has_checksum(tmp_path / "y", "crc32:00")


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "..\\out.png", "C:\\out.png"])
def test_unpack_refuses_names_that_lead_out(tmp_path, name):
    archive = make_zip(tmp_path / "evil.zip", {"good.png": b"good", name: b"evil"})
    (tmp_path / "in").mkdir()
    with pytest.raises(download.UnsafeArchive, match=r"out\.png"):
        download.unpack_zip(archive, tmp_path / "in")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["evil.zip", "in"]


def test_unpack_refuses_links(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = make_zip(tmp_path / "evil.zip", {link: "/etc"})
    with pytest.raises(download.UnsafeArchive, match="link"):
        download.unpack_zip(archive, tmp_path / "in")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(download.UnsafeArchive, match="elsewhere"):
        download.unpack_zip(make_zip(tmp_path / "evil.zip", {"elsewhere/x": b"x"}), tmp_path / "in")


def test_unpack_finishes_what_was_begun(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"d/1.png": b"one", "d/2.png": b"two"})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.png").write_bytes(b"o")  # cut short
    (tmp_path / "d" / "2.png").write_bytes(b"TWO")  # whole: not written again
    download.unpack_zip(archive, tmp_path)
    assert (tmp_path / "d" / "1.png").read_bytes() == b"one"
    assert (tmp_path / "d" / "2.png").read_bytes() == b"TWO"


def test_div2k_from_a_local_server(server, tmp_path, monkeypatch, capsys):
    checksums = {}
    for subset in ("train", "valid"):
        packed = io.BytesIO()
        make_zip(packed, {f"DIV2K_{subset}_HR/0001.png": subset.encode()})
        server.files[f"/DIV2K_{subset}_HR.zip"] = packed.getvalue()
        checksums[f"DIV2K_{subset}_HR.zip"] = "md5:" + hashlib.md5(packed.getvalue()).hexdigest()
    download.download_div2k(tmp_path, base_url=server.url("").rstrip("/"), checksums=checksums)
    assert (tmp_path / "DIV2K_train_HR" / "0001.png").read_bytes() == b"train"
    assert (tmp_path / "DIV2K_valid_HR" / "0001.png").read_bytes() == b"valid"
    download.download_div2k(tmp_path, base_url=server.url("").rstrip("/"), checksums=checksums)
    assert len(server.requests) == 2

    def refuse(folder, subsets):
        raise download.DownloadError(f"{folder} {subsets}")

    monkeypatch.setattr(download, "download_div2k", refuse)
    assert download.main([str(tmp_path), "--subset", "valid"]) == 1
    assert capsys.readouterr().err == f"{tmp_path} ['valid']\n"
