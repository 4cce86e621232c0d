"""Files of S3, on a server of this machine."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from musegnn.data_store import open_matrix
from musegnn.data_store.inspection import inspect
from musegnn.errors import InputError
from tests.data_store.written import FORMATS, SYMBOLS, G, make_adata

WHY = "needs a server of S3: pip install 'musegnn[remote]' 'moto[s3]' flask flask-cors"
s3fs = pytest.importorskip("s3fs", reason=WHY)
server = pytest.importorskip("moto.server", reason=WHY)
pytest.importorskip("flask_cors", reason=WHY)
# s3fs leaves its connections to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def address():
    """Serve S3 on a free port."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(address, monkeypatch):
    """Make a bucket that the settings of AWS's tools lead to, and return its file system."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    if not system.exists("counts"):
        system.mkdir("counts")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("name", ["h5ad", "10x h5 v3", "loom", "mtx v3", "zarr v2", "zarr v3", "visium v2"])
def test_files_and_folders_of_s3_are_read_as_those_of_this_machine(name, counts, bucket, tmp_path):
    path, options = FORMATS[name](make_adata(counts), tmp_path)
    target = f"counts/{name.replace(' ', '_')}/{path.name}"
    bucket.put(str(path), target, recursive=path.is_dir())
    source = open_matrix(f"s3://{target}", **options)
    local = open_matrix(path, **options)
    assert source.gene.tolist() == SYMBOLS
    read = [sp.vstack([block for _, block in each.blocks(50)]).toarray() for each in (source, local)]
    assert np.array_equal(*read)
    assert read[0].sum() > 0
    assert source.fingerprint() == local.fingerprint()


def test_inspecting_s3(counts, bucket, tmp_path):
    path, _ = FORMATS["h5ad"](make_adata(counts), tmp_path)
    bucket.put(str(path), "counts/x.h5ad")
    (entry,) = inspect("s3://counts/x.h5ad")
    assert (entry.problem, entry.source.n_genes, entry.bytes) == ("", G, path.stat().st_size)


def test_what_s3_does_not_have_or_refuses_is_one_line(bucket):
    with pytest.raises(InputError, match=r"E230.*no such file"):
        open_matrix("s3://counts/none.h5ad")
    with pytest.raises(InputError, match=r"error\[E2[38]0\]") as caught:
        open_matrix("s3://no-such-bucket/none.h5ad")
    assert "\n" not in caught.value.line()
    assert "hunter2" not in caught.value.line()


def test_s3_without_credentials_is_one_line(bucket, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"E280.*Fix: give credentials") as caught:
        open_matrix("s3://counts/x.h5ad")
    assert "\n" not in caught.value.line()
