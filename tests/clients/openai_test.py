"""OpenAI's own SDK for Python, unmodified, against a running Plinth whose model is simulated.

PLINTH_URL names it. `tests/clients/run` makes `.venv`, and runs this with it.
"""

import json
import os
import unittest
import urllib.request
import uuid

import openai

URL = os.environ.get("PLINTH_URL", "http://127.0.0.1:8080")
MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "How do I sleep better?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def sign_up():
    """Someone new, who has asked nothing yet: an access token."""
    body = {"email": f"{uuid.uuid4()}@example.com", "password": "correct horse battery"}
    request = urllib.request.Request(
        f"{URL}/auth/v1/signup", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["access_token"]


def client(key):
    """A client, and what it really sends: the SDK retries in silence."""
    sent = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, http_client=http), sent


def text(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.token = sign_up()
        cls.openai, _ = client(cls.token)

    def create(self, **options):
        return self.openai.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **options})

    def test_a_plain_answer(self):
        answer = self.create()

        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertGreater(len(answer.choices[0].message.content), 10)
        self.assertGreater(answer.usage.total_tokens, 0)

    def test_a_streamed_answer_has_the_same_words_and_no_usage(self):
        chunks = list(self.create(stream=True))

        self.assertEqual(text(chunks), self.create().choices[0].message.content)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_a_streamed_answer_with_usage_ends_with_it(self):
        *chunks, last = self.create(stream=True, stream_options={"include_usage": True})

        self.assertEqual(last.choices, [])
        self.assertGreater(last.usage.total_tokens, 0)
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_a_tool_is_called_streamed_and_not(self):
        choice = {"type": "function", "function": {"name": "weather"}}
        whole = self.create(tools=[WEATHER], tool_choice=choice).choices[0]
        self.assertEqual(whole.finish_reason, "tool_calls")
        call = whole.message.tool_calls[0].function
        self.assertIn("city", json.loads(call.arguments))

        chunks = list(self.create(tools=[WEATHER], tool_choice=choice, stream=True))
        pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or []]
        self.assertEqual("".join(piece.function.arguments or "" for piece in pieces), call.arguments)
        self.assertEqual({piece.index for piece in pieces}, {0})

    def test_the_models_of_the_plan_are_listed(self):
        ids = [model.id for model in self.openai.models.list()]
        self.assertEqual([id for id in ids if "embedding" not in id], ["gpt-4o-mini"])

    def test_what_cannot_be_asked_is_asked_once(self):
        stranger, sent = client("sk-wrong")
        with self.assertRaises(openai.AuthenticationError):
            stranger.chat.completions.create(model=MODEL, messages=MESSAGES)
        self.assertEqual(len(sent), 1)

        someone, sent = client(self.token)
        with self.assertRaises(openai.NotFoundError) as unknown:
            someone.chat.completions.create(model="gpt-nope", messages=MESSAGES)
        self.assertEqual(unknown.exception.code, "model_not_found")
        with self.assertRaises(openai.PermissionDeniedError):
            someone.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        self.assertEqual(len(sent), 2)

    def test_a_quota_that_is_used_up_is_asked_once(self):
        someone, sent = client(sign_up())
        # Most of the free plan's tokens in one question.
        long = [{"role": "user", "content": "word " * 40_000}]
        someone.chat.completions.create(model=MODEL, messages=long)
        with self.assertRaises(openai.RateLimitError) as refused:
            someone.chat.completions.create(model=MODEL, messages=long)
        self.assertEqual(refused.exception.code, "insufficient_quota")
        self.assertEqual(len(sent), 2)

    def test_a_stream_that_fails_after_its_first_words_throws_and_never_just_ends(self):
        for broken in ["sim-error", "sim-cut-5", "sim-eof-5", "sim-garbage"]:
            with self.subTest(broken):
                someone, sent = client(self.token)
                chunks = []
                with self.assertRaises(openai.APIError):
                    for chunk in someone.chat.completions.create(model=broken, messages=MESSAGES, stream=True):
                        chunks.append(chunk)
                self.assertGreater(len(text(chunks)), 0)
                self.assertEqual(len(sent), 1)

    def test_an_answer_that_was_cut_off_is_a_failure_the_sdk_retries(self):
        someone, sent = client(self.token)
        with self.assertRaises(openai.APIStatusError) as failed:
            someone.chat.completions.create(model="sim-cut-5", messages=MESSAGES)
        self.assertEqual((failed.exception.status_code, failed.exception.code), (503, "llm_unavailable"))
        self.assertEqual(len(sent), 3)


if __name__ == "__main__":
    unittest.main()
