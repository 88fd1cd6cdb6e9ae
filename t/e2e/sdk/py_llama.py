"""openai and anthropic, talking to a real model: llama.cpp's own server."""

import anthropic
import openai

from run import BASE, GATEWAY, case, drain, main, raised

gpt = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0)
claude = anthropic.Anthropic(base_url=BASE, api_key="none", max_retries=0)

# greedy, and nothing kept of the last prompt: the same text each time
SAME = {"temperature": 0, "cache_prompt": False}
MESSAGES = [{"role": "user", "content": "Name three colours of the rainbow."}]


# the server answers both dialects, but a model here has one
CLAUDE = "claude-smollm2" if GATEWAY else "smollm2"


def chat(n=24, **more):
    return gpt.chat.completions.create(
        model="smollm2", messages=MESSAGES, max_tokens=n, extra_body=SAME,
        **more)


def say(n=24, **more):
    return claude.messages.create(
        model=CLAUDE, messages=MESSAGES, max_tokens=n, extra_body=SAME,
        **more)


@case("chat")
def _():
    r = chat()
    assert r.usage.completion_tokens == 24
    return r.choices[0].message.content, r.usage


@case("chat stream")
def _():
    items, error = drain(chat(stream=True))
    assert error is None
    assert all(i.choices and not i.usage for i in items), "no usage"
    assert items[-1].choices[0].finish_reason == "length"
    text = "".join(i.choices[0].delta.content or "" for i in items)
    assert text == chat().choices[0].message.content
    return text, len(items)


@case("chat stream: with usage")
def _():
    items, error = drain(chat(
        stream=True, stream_options={"include_usage": True}))
    assert error is None and items[-1].choices == []
    return len(items), items[-1].usage


@case("completions")
def _():
    o = {"model": "smollm2", "prompt": "The sky is", "max_tokens": 8,
         "extra_body": SAME}
    r = gpt.completions.create(**o)
    items, error = drain(gpt.completions.create(**o, stream=True))
    assert error is None
    assert "".join(i.choices[0].text for i in items) == r.choices[0].text
    return r.choices[0].text, r.usage


@case("responses")
def _():
    o = {"model": "smollm2", "input": "Say hello.", "max_output_tokens": 8,
         "extra_body": SAME}
    r = gpt.responses.create(**o)
    items, error = drain(gpt.responses.create(**o, stream=True))
    assert error is None
    assert items[-1].type == "response.completed"
    text = "".join(i.delta for i in items
                   if i.type == "response.output_text.delta")
    assert text == r.output_text
    return text, [i.type for i in items], r.usage


@case("chat: a schema")
def _():
    r = chat(n=60, response_format={
        "type": "json_schema",
        "json_schema": {"name": "colour", "strict": True, "schema": {
            "type": "object", "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"enum": ["red", "green"]}}}}})
    return r.choices[0].message.content


@case("messages")
def _():
    r = say()
    assert r.stop_reason == "max_tokens"
    return r.content[0].text, r.usage


# the server leaves message_start out now and then, whoever asks
@case("messages stream")
def _():
    for _ in range(5):
        try:
            return messages_stream()
        except RuntimeError as e:
            missing = e
        except anthropic.APIConnectionError as e:
            # nor does it tell that it closes a connection, just as the next
            # request comes; the gateway is to make nothing of that
            if GATEWAY:
                raise
            missing = e
    raise missing


def messages_stream():
    with claude.messages.stream(model=CLAUDE, messages=MESSAGES,
                                max_tokens=24, extra_body=SAME) as s:
        text = "".join(s.text_stream)
        r = s.get_final_message()
    assert text == r.content[0].text == say().content[0].text
    return text, r.usage


@case("count_tokens")
def _():
    return claude.messages.count_tokens(model=CLAUDE, messages=MESSAGES)


@case("the server's own complaint")
def _():
    e = raised(gpt.chat.completions.create, model="smollm2",
               messages=[{"role": "nobody", "content": 5}])
    assert isinstance(e, openai.APIStatusError)
    return type(e).__name__, e.status_code, e.body


main()
