"""A server that speaks as much of the Hub's protocol as models need."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


class StandIn(ThreadingHTTPServer):
    """Repositories in memory, of the namespace ``me``.

    Attributes
    ----------
    repos : dict
        Files with their contents, by name of the repository.
    hidden : set
        Names of private ones.
    asked : list
        Method and path of each request.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.hidden, self.large, self.asked = {}, set(), {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


def sha(repo):
    """Return what stands for the commit of a repository."""
    content = repr(sorted((n, len(c)) for n, c in repo.items()))
    return hashlib.sha1(content.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers a request by the first of the routes that fits."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def answer(self, status=200, content=None, **headers):
        body = content
        if not isinstance(content, bytes):
            body = json.dumps({} if content is None else content).encode()
        self.send_response(status)
        headers.setdefault("Content-Length", len(body))
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        size = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(size)
        for method, pattern, run in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                repo = found.groupdict().get("repo")
                if repo is not None and repo not in self.server.repos:
                    self.answer(404, **{"X-Error-Code": "RepoNotFound"})
                    return
                run(self, **found.groupdict())
                return
        self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def files(self, repo):
        return self.server.repos[repo]

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
        elif asked["organization"] != "me":
            self.answer(403, {"error": "You don't have the rights"})
        else:
            status = 409 if name in self.server.repos else 200
            self.server.repos.setdefault(name, {".gitattributes": b""})
            if status == 200 and asked.get("visibility") == "private":
                self.server.hidden.add(name)
            self.answer(status, {"url": f"{self.server.url}/{name}"})

    def info(self, repo, revision=None):
        names = [{"rfilename": name} for name in self.files(repo)]
        self.answer(
            200,
            {
                "id": repo,
                "sha": sha(self.files(repo)),
                "private": repo in self.server.hidden,
                "siblings": names,
            },
        )

    def validate(self):
        card = json.loads(self.body)["content"]
        assert card.startswith("---\n")
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, repo):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs"
                if file["path"].endswith((".safetensors", ".model"))
                else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.answer(200, {"files": files})

    def batch(self, repo):
        objects = [
            thing | {"actions": {"upload": {"href": f"{self.server.url}/lfs"}}}
            for thing in json.loads(self.body)["objects"]
        ]
        self.answer(200, {"objects": objects, "transfer": "basic"})

    def upload(self):
        self.server.large[hashlib.sha256(self.body).hexdigest()] = self.body
        self.answer()

    def commit(self, repo):
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                if value["parentCommit"] != sha(self.files(repo)):
                    self.answer(412, {"error": "A commit has happened since"})
                    return
            elif key == "file":
                content = base64.b64decode(value["content"])
                self.files(repo)[value["path"]] = content
            elif key == "lfsFile":
                content = self.server.large[value["oid"]]
                self.files(repo)[value["path"]] = content
            elif key == "deletedFile":
                del self.files(repo)[value["path"]]
        commit = sha(self.files(repo))
        url = f"{self.server.url}/{repo}/commit/{commit}"
        self.answer(200, {"commitUrl": url, "commitOid": commit})

    def tree(self, repo, revision):
        entries = [
            {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            for name, content in self.files(repo).items()
        ]
        self.answer(200, entries)

    def resolve(self, repo, revision, path):
        content = self.files(repo)[path]
        headers = {
            "X-Repo-Commit": revision,
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
        }
        self.answer(200, content, **headers)


ROUTES = [
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate),
    (("POST",), f"/api/models/{_REPO}/preupload/main", Handler.preupload),
    (("POST",), f"/{_REPO}.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), "/lfs", Handler.upload),
    (("POST",), f"/api/models/{_REPO}/commit/main", Handler.commit),
    (("GET",), f"/api/models/{_REPO}/tree/(?P<revision>.+)", Handler.tree),
    (
        ("GET",),
        f"/api/models/{_REPO}(/revision/(?P<revision>.+))?",
        Handler.info,
    ),
    (
        ("GET", "HEAD"),
        f"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        Handler.resolve,
    ),
]
