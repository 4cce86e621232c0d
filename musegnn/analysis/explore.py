"""The page of a run with fresh answers: an HTTP server that this computer alone reaches, and that only reads.

It listens on 127.0.0.1. A request must name this address as its host, so that no other site can reach the server under
a name of its own; answers carry no permission for other origins, and the page's policy lets it ask this server alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qs, urlsplit

import numpy as np

from musegnn.analysis.neighbors import query
from musegnn.errors import InputError, MuseGNNError
from musegnn.vectors import Similarity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from musegnn.data_store.records import PairTable

ADDRESS = "127.0.0.1"
MOST_NEIGHBORS = 500
LONGEST_REQUEST = 2000
LONGEST_NAME = 200
SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explorer:
    """Answers of the server.

    Attributes
    ----------
    page
        The page, rendered with ``live=True``.
    adata
        Annotated embeddings.
    pairs
        Stored pairs of each dataset by name, genes in the order of the rows of `adata`.
    """

    page: bytes
    adata: AnnData
    pairs: Mapping[str, PairTable]

    def neighbors(self, values: Mapping[str, str]) -> dict[str, Any]:  # JSON
        """Return the nearest genes of ``gene`` in ``dataset``: ``k`` of them, by a ranking, on one ``side`` or both."""
        k = _whole(values.get("k", "50"), MOST_NEIGHBORS)
        known = {name: name for name in get_args(Similarity)}
        by: Similarity | None = known.get(values.get("by", "balanced"))
        side = values.get("side", "all")
        if by is None or side not in {"all", "within", "across"}:
            msg = f"expected by of {', '.join(get_args(Similarity))}, and side of all, within or across"
            raise InputError(msg, code="E302", where="neighbors", fix="correct the request")
        dataset = values.get("dataset", "")
        adata = self.adata
        if side == "within":
            adata = adata[(adata.obs["dataset"] == dataset).to_numpy()]
        found = query(adata, values.get("gene", ""), dataset=dataset, k=k, across=side == "across", by=by)
        columns = found[["gene", "dataset", "cosine", "score"]]
        return {"rows": json.loads(columns.to_json(orient="records"))}

    def contrast(self, values: Mapping[str, str]) -> dict[str, Any]:  # JSON
        """Return the stored z of all partners of a gene in two datasets ``a`` and ``b`` that have both genes.

        ``gene`` is its name in a, ``other`` in b, where it may be an ortholog. ``limits`` bound ``abs(z)`` of what is
        not stored; ``missing`` counts the partners in b that a lacks, and the reverse.
        """
        names = (values.get("a", ""), values.get("b", ""))
        tables = [self._partners(name, gene) for name, gene in zip(names, self._genes(values), strict=True)]
        rows = []
        missing = [0, 0]
        for key in dict.fromkeys([*tables[0][1], *tables[1][1]]):
            present = [key in genes for genes, _ in tables]
            if all(present):
                a, b = (z.get(key) for _, z in tables)
                rows.append({"gene_a": tables[0][0][key], "gene_b": tables[1][0][key], "z_a": a, "z_b": b})
            else:
                missing[present.index(False)] += 1
        return {"rows": rows, "limits": [self.pairs[name].z_store for name in names], "missing": missing}

    def _genes(self, values: Mapping[str, str]) -> tuple[str, str]:
        gene = values.get("gene", "")
        return gene, values.get("other", gene)

    def _partners(self, dataset: str, gene: str) -> tuple[dict[str, str], dict[str, float]]:
        """Return the names of all genes of a dataset, and z of the partners of one, by key."""
        if dataset not in self.pairs:
            msg = f"no dataset is called {dataset}"
            raise InputError(msg, code="E420", where="contrast", fix=f"choose one of: {', '.join(sorted(self.pairs))}")
        rows = self.adata.obs[(self.adata.obs["dataset"] == dataset).to_numpy()]
        names, keys = rows["gene"].astype(str).tolist(), rows["gene_key"].astype(str).tolist()
        if gene not in names:
            msg = f"{gene} is not a gene of {dataset}"
            raise InputError(msg, code="E420", where="contrast", fix="choose another gene or dataset")
        pairs = self.pairs[dataset]
        place = names.index(gene)
        entries = slice(pairs.indptr[place], pairs.indptr[place + 1])
        z = np.round(pairs.z[entries].astype(np.float64), 3).tolist()
        found = zip(pairs.indices[entries].tolist(), z, strict=True)
        return dict(zip(keys, names, strict=True)), {keys[n]: value for n, value in found}


class ExploreServer(ThreadingHTTPServer):
    """Serves one :class:`Explorer` on 127.0.0.1; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.explorer = explorer

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        return f"http://{ADDRESS}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: ExploreServer
    server_version, sys_version = "musegnn", ""
    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def do_GET(self) -> None:
        hosts = {f"{name}:{self.server.server_port}" for name in (ADDRESS, "localhost")}
        if self.headers.get("Host") not in hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to 127.0.0.1 alone")
        elif len(self.path) > LONGEST_REQUEST:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, "the request is too long")
        else:
            self._answer(urlsplit(self.path))

    def _answer(self, address: Any) -> None:  # SplitResult
        explorer = self.server.explorer
        if address.path == "/":
            self._send(HTTPStatus.OK, explorer.page, "text/html; charset=utf-8")
            return
        ways = {"/api/neighbors": explorer.neighbors, "/api/contrast": explorer.contrast}
        if address.path not in ways:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing of this name")
            return
        values = {name: found[-1][:LONGEST_NAME] for name, found in parse_qs(address.query).items()}
        try:
            content = ways[address.path](values)
        except MuseGNNError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, error.line())
        else:
            self._send(HTTPStatus.OK, json.dumps(content).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        if kind == "application/json":
            self.send_header("Content-Security-Policy", "default-src 'none'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as http.server names it
        """Log nothing."""


def _whole(text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= most:
        msg = f"expected a whole number from 1 to {most}, got {text!r}"
        raise InputError(msg, code="E302", where="k", fix="correct the request")
    return int(text)
