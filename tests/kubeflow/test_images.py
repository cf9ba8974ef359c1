"""Asking a registry for an image: only a plain no counts."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from raregrade.errors import UserError
from raregrade.kubeflow.images import check_image

DIGEST = "sha256:" + "0" * 64


class Registry(BaseHTTPRequestHandler):
    """Has ``team/raregrade`` with the tag ``4f2a`` and a digest; ``answer`` stands in for everything else."""

    answer = (404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.reply(with_body=False)

    def do_GET(self):
        self.reply(with_body=True)

    def reply(self, *, with_body):
        self.server.asked.append((self.command, self.path, self.headers["Accept"]))
        there = self.path in ("/v2/team/raregrade/manifests/4f2a", f"/v2/team/raregrade/manifests/{DIGEST}")
        status, value = (200, {}) if there else self.answer
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def registry():
    handler = type("OneRegistry", (Registry,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        server.name = f"127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("which", [":4f2a", f"@{DIGEST}", f":old@{DIGEST}"])
def test_an_image_that_is_there(registry, which):
    assert check_image(f"{registry.name}/team/raregrade{which}")
    assert [(command, path.rpartition("/")[0]) for command, path, _ in registry.asked] == [
        ("HEAD", "/v2/team/raregrade/manifests")
    ]
    assert "vnd.oci.image.index" in registry.asked[0][2]


@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN"])
def test_an_image_that_is_not_there_is_refused(registry, code):
    registry.RequestHandlerClass.answer = (404, {"errors": [{"code": code}]})
    with pytest.raises(
        UserError, match=rf"registry {registry.name} has no image .*:other.*Build and push it"
    ) as caught:
        check_image(f"{registry.name}/team/raregrade:other")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "answer",
    [
        (401, {"errors": [{"code": "UNAUTHORIZED"}]}),
        (403, {"errors": [{"code": "DENIED"}]}),
        (404, {"errors": [{"code": "SOMETHING"}]}),
        (404, {"detail": "Not Found"}),
        (404, "a page"),
        (500, {}),
        (429, {"errors": [{"code": "TOOMANYREQUESTS"}]}),
    ],
)
def test_what_cannot_be_told_stops_nobody(registry, answer):
    registry.RequestHandlerClass.answer = answer
    assert not check_image(f"{registry.name}/team/raregrade:other")


def test_a_registry_that_does_not_answer_stops_nobody(registry):
    registry.shutdown()
    registry.server_close()
    assert not check_image(f"{registry.name}/team/raregrade:4f2a")


@pytest.mark.parametrize(
    "reference", ["localhost/raregrade:0.1.0", "raregrade:1", "team/raregrade:1", "not a reference"]
)
def test_an_image_without_a_registry_is_not_asked_for(reference):
    assert not check_image(reference)
