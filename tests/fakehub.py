"""A server that speaks the APIs of Hugging Face and ModelScope, cuts connections and serves wrong bytes."""

import hashlib
import json
import os
import re
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlparse

import numpy as np
from safetensors.numpy import save

COMMIT = "c" * 40
MAIN = "ACE-Step/Ace-Step1.5"


class Repositories:
    """What the server has, and how it behaves: `cut_after` bytes it closes a file's connection, `wrong` it spoils."""

    def __init__(self):
        self.files = {}  # (repository, path) -> bytes
        self.cut_after = {}  # path -> [bytes to send of it, one for each request]
        self.wrong = set()
        self.sent = {}  # path -> ranges asked for

    def add(self, repository, folder, size=3_000_000):
        prefix = f"{folder}/" if folder else ""
        stem = "diffusion_pytorch_model" if folder == "vae" else "model"
        named = {
            "config.json": b"{}", f"{stem}.safetensors": weights(size), "silence_latent.pt": b"s" * 1000,
            "modeling.py": b"raise SystemExit", "README.md": b"words",
        }  # fmt: skip
        if folder.startswith("Qwen"):
            named["tokenizer.json"] = b"{}"
        for name, content in named.items():
            self.files[repository, prefix + name] = content


def weights(size):
    """A file of weights of about that size, like no other."""
    return save({"x": np.frombuffer(os.urandom(size), np.uint8)})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        have, url = self.server.have, urlparse(self.path)
        path = url.path
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*)?", path):
            value = self.huggingface(found[1])
            return self.json(value, 200 if value["siblings"] else 404)
        if found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", path):
            return self.json(self.modelscope(found[1]))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self.file(have, found[1], found[2], body)
        if found := re.fullmatch(r"/(?:api/v1/)?models/([^/]+/[^/]+)/(?:repo|resolve/[^/]+/(.+))", path):
            name = found[2] or parse_qs(url.query)["FilePath"][0]
            return self.file(have, found[1], name, body)
        return self.json({"Code": 404, "Success": False, "Message": "not found", "error": "not found"}, 404)

    def huggingface(self, repository):
        siblings = [
            {
                "rfilename": path, "size": len(content), "blobId": "b",
                **({"lfs": lfs(content)} if path.endswith((".safetensors", ".pt")) else {}),
            }
            for (owner, path), content in self.server.have.files.items() if owner == repository
        ]  # fmt: skip
        return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}

    def modelscope(self, repository):
        listed = [
            {"Path": path, "Name": path.rpartition("/")[2], "Size": len(content), "Type": "blob",
             "Sha256": hashlib.sha256(content).hexdigest()}
            for (owner, path), content in self.server.have.files.items() if owner == repository
        ]  # fmt: skip
        return {"Code": 200, "Success": True, "Data": {"Files": listed}}

    def json(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def file(self, have, repository, path, body):
        content = have.files.get((repository, path))
        if content is None:
            return self.json({"error": "not found", "Code": 404, "Success": False, "Message": "not found"}, 404)
        digest = hashlib.sha256(content).hexdigest()
        if path in have.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        first = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not body:
            return None
        have.sent.setdefault(path, []).append(first)
        cuts = have.cut_after.get(path)
        if not cuts:
            self.wfile.write(content[first:])
            return None
        self.wfile.write(content[first : first + cuts.pop(0)])
        self.wfile.flush()
        self.close_connection = True
        return None


def lfs(content):
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
