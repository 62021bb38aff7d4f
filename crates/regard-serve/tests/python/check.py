"""OpenAI's own client against a running server: `check.py regard` starts that binary over the story model and asks it everything."""

import asyncio
import sys

import openai
from server import KEY, served

PROMPT = "Once upon a time there was a king"
GREEDY = dict(model="tales", prompt=PROMPT, max_tokens=24, temperature=0)
CHAT = dict(model="tales", messages=[{"role": "user", "content": "Who?"}], max_completion_tokens=16, temperature=0)


def completions(client):
    whole = client.completions.create(**GREEDY, logprobs=2, echo=True)
    assert "".join(whole.choices[0].logprobs.tokens) == whole.choices[0].text
    text = whole.choices[0].text.removeprefix(PROMPT)
    pieces, usage = [], None
    for chunk in client.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True}):
        pieces += [choice.text for choice in chunk.choices]
        usage = chunk.usage or usage
    assert "".join(pieces) == text and len(pieces) > 10, pieces
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, 24)
    many = client.completions.create(**{**GREEDY, "prompt": [PROMPT, "The fox"], "temperature": 1}, n=2, best_of=3, seed=1)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    beams = client.completions.create(model="tales", prompt=PROMPT, max_tokens=8, n=2, extra_body={"beam_width": 4})
    assert len({choice.text for choice in beams.choices}) == 2
    return text


def chats(client):
    whole = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2, n=2)
    first, second = whole.choices
    assert first.message == second.message and first.finish_reason == "length"
    assert "".join(record.token for record in first.logprobs.content) == first.message.content
    pieces = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**CHAT, stream=True)]
    assert "".join(pieces) == first.message.content


def refusals(client, base_url):
    for wrong in (dict(temperature=9), dict(n=0), dict(prompt=""), dict(suffix="x"), dict(extra_body={"unheard_of": 1})):
        try:
            client.completions.create(**{**GREEDY, **wrong})
        except openai.BadRequestError as error:
            name = next(iter(wrong)) if "extra_body" not in wrong else "unheard_of"
            assert error.body["param"] == name and name in error.body["message"], error.body
        else:
            raise AssertionError(f"{wrong} was taken")
    for status, call in (
        (openai.NotFoundError, lambda: client.completions.create(**{**GREEDY, "model": "other"})),
        (openai.BadRequestError, lambda: client.embeddings.create(model="tales", input="x")),
        (openai.AuthenticationError, lambda: openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).models.list()),
    ):
        try:
            call()
        except status:
            continue
        raise AssertionError(f"no {status.__name__}")


async def many_at_once(base_url, text):
    async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
        whole = [client.completions.create(**GREEDY) for _ in range(16)]

        async def streamed():
            stream = await client.completions.create(**GREEDY, stream=True)
            return "".join([choice.text async for chunk in stream for choice in chunk.choices])

        answers = await asyncio.gather(*whole, *(streamed() for _ in range(16)))
        assert all((answer if isinstance(answer, str) else answer.choices[0].text) == text for answer in answers)


def main(binary):
    with served(binary) as (_, address):
        base_url = address + "/v1"
        client = openai.OpenAI(base_url=base_url, api_key=KEY, max_retries=0)
        assert [model.id for model in client.models.list()] == ["tales"]
        text = completions(client)
        chats(client)
        refusals(client, base_url)
        asyncio.run(many_at_once(base_url, text))
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
