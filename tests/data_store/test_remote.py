"""Files behind URLs are read as those of this machine are."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import scipy.sparse as sp

from musegnn.cluster.build import build_graphs
from musegnn.config import AtlasConfig
from musegnn.data_store import Store, open_matrix
from musegnn.data_store.inspection import inspect
from musegnn.errors import InputError, MissingDependencyError
from tests.data_store.written import FORMATS, SYMBOLS, G, make_adata, write_h5ad

pytest.importorskip("aiohttp")


class Handler(BaseHTTPRequestHandler):
    """Serve files of a folder in ranges of bytes, as object stores do, and list what was asked."""

    def __init__(self, folder, asked, *args):
        self.folder, self.asked = folder, asked
        super().__init__(*args)

    def do_GET(self):
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.send_error(403 if path.name == "forbidden.h5ad" else 404)
            return
        body, size = path.read_bytes(), path.stat().st_size
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(ranged[1]), min(int(ranged[2] or size - 1), size - 1)) if ranged else (0, size - 1)
        self.asked.append((self.command, last - first + 1))
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        if ranged:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[first : last + 1])

    do_HEAD = do_GET  # noqa: N815  a name of the library

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """Serve a folder on this machine: its address, and a list of requests."""
    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, tmp_path, asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def served_by_tls(tmp_path):
    """Serve a folder by TLS with a certificate that nobody has signed: address, and the certificate."""
    pytest.importorskip("cryptography", reason="needs the package cryptography for a certificate")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate, secret = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*formats))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    server = ThreadingHTTPServer(("localhost", 0), partial(Handler, tmp_path, []))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_address[1]}", certificate
    server.shutdown()
    server.server_close()
    thread.join()


def test_https_is_read_where_the_certificate_is_trusted(counts, served_by_tls, tmp_path):
    address, certificate = served_by_tls
    path, _ = write_h5ad(make_adata(counts), tmp_path)
    script = (
        "import sys\nfrom musegnn.data_store import open_matrix\nfrom musegnn.errors import MuseGNNError\ntry:\n"
        "    print(sum(block.sum() for _, block in open_matrix(sys.argv[1]).blocks(50)))\n"
        "except MuseGNNError as error:\n    print(error.line())\n"
    )
    command = [sys.executable, "-c", script, f"{address}/{path.name}?secret=1"]
    trusting = os.environ | {"SSL_CERT_FILE": str(certificate)}
    found = [
        subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True).stdout
        for environment in (trusting, {k: v for k, v in os.environ.items() if k != "SSL_CERT_FILE"})
    ]
    assert found[0] == f"{int(counts.sum())}\n"
    assert re.fullmatch(r"error\[E280\] https://localhost.*does not answer \(Client\w*Cert\w*\). Fix: .*\n", found[1])
    assert "secret" not in found[1]


def gather(source):
    return sp.vstack([block for _, block in source.blocks(50)]).toarray()


@pytest.mark.parametrize("name", ["h5ad", "10x h5 v3", "loom"])
def test_a_file_behind_http(name, counts, served, tmp_path):
    path, options = FORMATS[name](make_adata(counts), tmp_path)
    source = open_matrix(f"{served[0]}/{path.name}", **options)
    assert source.access == "sequential"
    assert np.array_equal(gather(source), counts.toarray())
    assert source.gene.tolist() == SYMBOLS
    local = open_matrix(path, **options).fingerprint()
    assert source.fingerprint() == local


def test_inspecting_a_url_does_not_download_it(counts, served, tmp_path):
    adata = make_adata(counts)
    adata.uns["large"] = np.random.default_rng(0).random(4_000_000)
    path, _ = write_h5ad(adata, tmp_path)
    (entry,) = inspect(f"{served[0]}/{path.name}")
    assert entry.source.n_genes == G
    assert sum(size for command, size in served[1] if command == "GET") < path.stat().st_size / 2


@pytest.mark.parametrize("name", ["h5ad", "mtx v3", "zarr v3"])
def test_files_and_folders_of_any_file_system(name, counts, tmp_path):
    path, options = FORMATS[name](make_adata(counts), tmp_path)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    target = f"/data/{path.name}"
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        place = target if file == path else f"{target}/{file.relative_to(path)}"
        memory.pipe(place, file.read_bytes())
    source = open_matrix(f"memory:/{target}", **options)
    assert np.array_equal(gather(source), counts.toarray())
    assert source.fingerprint()["sha256"] == open_matrix(path, **options).fingerprint()["sha256"]


def test_a_build_reads_a_url_through_a_copy(served, tmp_path):
    rng = np.random.default_rng(0)
    factors = np.repeat(rng.gamma(1.0, 1.0, (120, G // 5)), 5, axis=1)
    adata = make_adata(sp.csr_matrix(rng.poisson(3.0 * factors).astype(np.float32)))
    adata.uns["large"] = rng.random(4_000_000)
    path, options = write_h5ad(adata, tmp_path)
    pairs = []
    for place in (path, f"{served[0]}/{path.name}"):
        dataset = {"name": "one", "path": place, "tissue": "lung", "species": "human", "modality": "scrna"} | options
        atlas = AtlasConfig.model_validate({"datasets": [dataset], "graph": {"min_cells": 5, "n_genes": G}})
        store = Store.open_or_create(tmp_path / f"store{len(pairs)}")
        build_graphs(atlas, store, scheduler="synchronous")
        pairs.append(store.read("one").pairs)
    assert np.array_equal(pairs[0].z, pairs[1].z)
    asked = sum(size for command, size in served[1] if command == "GET")
    assert asked < 2.5 * path.stat().st_size  # once for its SHA-256, and a few heads


def test_a_missing_package_of_a_server_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingDependencyError, match=r"E430.*needs the package gcsfs.*Fix: pip install gcsfs"):
        open_matrix("gs://bucket/x.h5ad")


def test_what_a_server_refuses_is_one_line(served, tmp_path):
    with pytest.raises(InputError, match=r"E230.*no such file"):
        open_matrix(f"{served[0]}/none.h5ad?secret=1")
    with pytest.raises(InputError, match=r"E280.*refuses access \(403\)"):
        open_matrix(f"{served[0]}/forbidden.h5ad")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/x.h5ad"
    with pytest.raises(InputError, match=r"E280.*does not answer \(Client"):
        open_matrix(dead)
    with pytest.raises((InputError, MissingDependencyError)) as caught:
        open_matrix("nothing://x/y.h5ad?secret=1")
    assert "secret" not in str(caught.value)
    assert Path(tmp_path).is_dir()
