"""Schemathesis makes requests from our own OpenAPI document, right ones and wrong ones: none breaks the server."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import TOKEN, make_bundle, serving

# Left out is positive_data_acceptance: a conversation that ends with the assistant, or names a character that there is
# not, fits the document and is refused all the same.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,ignored_auth,unsupported_method"
)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_that_the_document_allows_or_forbids_breaks_the_server(tmp_path, seed):
    with serving(
        tmp_path, "lumen", "--no-adapter", characters=make_bundle(tmp_path / "b"), env={"CAMELBELL_TOKEN": TOKEN}
    ) as lumen:
        done = subprocess.run(
            [
                sys.executable, "-c", "import sys; from schemathesis.cli import schemathesis as run; sys.exit(run())",
                "run", f"{lumen.url}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}",
                "--checks", CHECKS, "--max-examples", "60", "--seed", str(seed), "--generation-deterministic",
                "--phases", "examples,coverage,fuzzing", "--request-timeout", "30",
            ],
            env={**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}, capture_output=True, cwd=tmp_path, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert lumen.counted("camelbell_requests_total") > 300
        assert lumen.counted("camelbell_replies_total", ended="failed") == 0
        lumen.http.headers["Authorization"] = f"Bearer {TOKEN}"
        assert lumen.said("你好") == "你好"
        assert "Traceback" not in lumen.log.read_text(encoding="utf-8")


ROLES = st.sampled_from(["user", "assistant", "system", "developer"])
TEXT = st.text(st.characters(), max_size=40)  # half surrogate pairs too
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": st.none() | TEXT}), min_size=1, max_size=8)
OPTIONS = {
    "stream": st.booleans(),
    "stop": st.none() | TEXT | st.lists(TEXT, max_size=5),
    "max_tokens": st.integers(-1, 2**70),
    "temperature": st.floats(-0.5, 2.5),
    "top_p": st.floats(-0.5, 1.5),
    "seed": st.integers(-(2**64), 2**64),
    "stream_options": st.fixed_dictionaries({"include_usage": st.none() | st.booleans()}),
}
REQUESTS = st.fixed_dictionaries(
    {"model": st.sampled_from(["lumen", "lumen@1-1", "lumen@2"]), "messages": MESSAGES}, optional=OPTIONS
)


def test_a_character_answers_any_request_or_says_what_is_wrong_with_it(tmp_path):
    statuses = set()
    with serving(tmp_path, "lumen", "--no-adapter", characters=make_bundle(tmp_path / "b")) as lumen:

        @settings(max_examples=400, deadline=None, derandomize=True)
        @given(REQUESTS)
        def answered(body):
            reply = lumen.http.post("/v1/chat/completions", content=json.dumps(body))
            statuses.add(reply.status_code)
            if reply.status_code == 400:
                assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
            elif body.get("stream"):
                assert reply.text.endswith("data: [DONE]\n\n")
            else:
                assert reply.json()["choices"][0]["finish_reason"] in ("stop", "length")

        lumen.http.headers["Content-Type"] = "application/json"
        answered()
        assert statuses == {200, 400}
        assert lumen.counted("camelbell_replies_total", ended="failed") == 0
