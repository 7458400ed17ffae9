// OpenAI's own SDK, unmodified, against a running Plinth whose model is simulated.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import OpenAI, { APIError, AuthenticationError, NotFoundError, PermissionDeniedError, RateLimitError } from 'openai';
import { anyServer } from './server.mjs';

const { url } = await anyServer();
const model = 'gpt-4o-mini';
const messages = [{ role: 'user', content: 'How do I sleep better?' }];
const weather = {
  type: 'function',
  function: {
    name: 'weather',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

/** Someone new, who has asked nothing yet: an access token. */
async function signUp() {
  const email = `${crypto.randomUUID()}@example.com`;
  const answer = await fetch(`${url}/auth/v1/signup`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password: 'correct horse battery' }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).access_token;
}

/** A client that counts what it really sends: the SDK retries in silence. */
function client(apiKey) {
  const sent = [];
  const openai = new OpenAI({
    baseURL: `${url}/v1`,
    apiKey,
    fetch: (to, init) => {
      sent.push(String(to));
      return fetch(to, init);
    },
  });
  return { openai, sent };
}

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const text = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

let token, openai;
before(async () => {
  token = await signUp();
  ({ openai } = client(token));
});

test('a plain answer', async () => {
  const answer = await openai.chat.completions.create({ model, messages });

  const [choice] = answer.choices;
  assert.equal(answer.object, 'chat.completion');
  assert.equal(choice.finish_reason, 'stop');
  assert.ok(choice.message.content.length > 10);
  assert.ok(answer.usage.prompt_tokens > 0 && answer.usage.completion_tokens > 0);
  assert.ok(answer._request_id);
});

test('a streamed answer has the same words and no usage', async () => {
  const whole = await openai.chat.completions.create({ model, messages });
  const chunks = await all(await openai.chat.completions.create({ model, messages, stream: true }));

  assert.equal(text(chunks), whole.choices[0].message.content);
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
  assert.ok(chunks.every((chunk) => chunk.usage === undefined && chunk.id === chunks[0].id));
});

test('a streamed answer with usage ends with it', async () => {
  const options = { model, messages, stream: true, stream_options: { include_usage: true } };
  const chunks = await all(await openai.chat.completions.create(options));

  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.total_tokens > 0);
  assert.ok(chunks.every((chunk) => chunk.usage === null));
});

test("the SDK's own assembly of a stream comes to its end", async () => {
  const stream = openai.chat.completions.stream({ model, messages, stream_options: { include_usage: true } });

  const final = await stream.finalChatCompletion();

  assert.equal(final.choices[0].finish_reason, 'stop');
  assert.ok(final.choices[0].message.content.length > 10);
  assert.ok(final.usage.total_tokens > 0);
});

test('a tool is called, streamed and not, and its answer leads on', async () => {
  const tool_choice = { type: 'function', function: { name: 'weather' } };
  const options = { model, messages: [{ role: 'user', content: 'Paris?' }], tools: [weather], tool_choice };

  const { message, finish_reason } = (await openai.chat.completions.create(options)).choices[0];
  assert.equal(finish_reason, 'tool_calls');
  const [call] = message.tool_calls;
  assert.equal(call.function.name, 'weather');
  assert.equal(typeof JSON.parse(call.function.arguments).city, 'string');

  const streamed = await openai.chat.completions.stream(options).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);

  const answered = [...options.messages, message, { role: 'tool', tool_call_id: call.id, content: '18 degrees' }];
  const answer = await openai.chat.completions.create({ model, messages: answered, tools: [weather] });
  assert.match(answer.choices[0].message.content, /18 degrees/);
});

test('a schema is kept to', async () => {
  const schema = { type: 'object', properties: { mood: { type: 'string', enum: ['good', 'bad'] } }, required: ['mood'], additionalProperties: false };
  const response_format = { type: 'json_schema', json_schema: { name: 'mood', strict: true, schema } };

  const answer = await openai.chat.completions.create({ model, messages, response_format });

  assert.ok(['good', 'bad'].includes(JSON.parse(answer.choices[0].message.content).mood));
});

test("the SDK's own loop of tools comes to its end, streamed and not", async () => {
  for (const stream of [false, true]) {
    const asked = [];
    const run = async ({ city }) => {
      asked.push(city);
      return '18 degrees';
    };
    const tools = [{ type: 'function', function: { ...weather.function, description: 'The weather.', parse: JSON.parse, function: run } }];

    const runner = openai.chat.completions.runTools({ model, stream, messages: [{ role: 'user', content: 'Use weather for Paris.' }], tools });

    assert.match(await runner.finalContent(), /18 degrees/);
    assert.deepEqual(asked.map((city) => typeof city), ['string']);
    assert.deepEqual(runner.messages.map(({ role }) => role), ['user', 'assistant', 'tool', 'assistant']);
  }
});

test("the SDK's own reading of a schema finds what it asked for", async () => {
  const schema = { type: 'object', properties: { mood: { type: 'string', enum: ['good', 'bad'] } }, required: ['mood'], additionalProperties: false };
  const response_format = { type: 'json_schema', json_schema: { name: 'mood', strict: true, schema } };

  const answer = await openai.chat.completions.parse({ model, messages, response_format });
  const streamed = await openai.chat.completions.stream({ model, messages, response_format }).finalChatCompletion();

  assert.ok(['good', 'bad'].includes(answer.choices[0].message.parsed.mood));
  assert.deepEqual(JSON.parse(streamed.choices[0].message.content), answer.choices[0].message.parsed);
});

test('the models of the plan are listed', async () => {
  const models = await all(await openai.models.list());

  assert.deepEqual(models.map((model) => model.id).filter((id) => !id.includes('embedding')), ['gpt-4o-mini']);
});

test('a wrong key is an AuthenticationError, and asked once', async () => {
  const { openai, sent } = client('sk-wrong');

  await assert.rejects(openai.chat.completions.create({ model, messages }), (error) => error instanceof AuthenticationError && error.code === 'invalid_api_key');
  assert.equal(sent.length, 1);
});

test('a model that does not exist is a NotFoundError, one beyond the plan a PermissionDeniedError, each asked once', async () => {
  const { openai, sent } = client(token);

  await assert.rejects(openai.chat.completions.create({ model: 'gpt-nope', messages }), (error) => error instanceof NotFoundError && error.code === 'model_not_found' && error.param === 'model');
  await assert.rejects(openai.chat.completions.create({ model: 'gpt-4o', messages }), (error) => error instanceof PermissionDeniedError && error.code === 'model_not_in_plan');
  assert.equal(sent.length, 2);
});

test('a quota that is used up is a RateLimitError, and asked once', async () => {
  const { openai, sent } = client(await signUp());
  // Most of the free plan's tokens in one question.
  const long = [{ role: 'user', content: 'word '.repeat(40_000) }];
  await openai.chat.completions.create({ model, messages: long });
  assert.equal(sent.length, 1);

  for (const stream of [false, true]) {
    await assert.rejects(openai.chat.completions.create({ model, messages: long, stream }), (error) => error instanceof RateLimitError && error.code === 'insufficient_quota' && error.type === 'insufficient_quota');
  }
  assert.equal(sent.length, 3);
});

for (const broken of ['sim-error', 'sim-cut-5', 'sim-eof-5', 'sim-garbage']) {
  test(`${broken}: a stream that fails after its first words throws, and never just ends`, async () => {
    const { openai, sent } = client(token);
    const chunks = [];

    await assert.rejects(async () => {
      for await (const chunk of await openai.chat.completions.create({ model: broken, messages, stream: true })) chunks.push(chunk);
    }, APIError);

    assert.ok(text(chunks).length > 0);
    assert.ok(chunks.every((chunk) => !chunk.choices[0]?.finish_reason));
    assert.equal(sent.length, 1);
  });
}

test('an answer that was cut off is a failure the SDK retries', async () => {
  const { openai, sent } = client(token);

  await assert.rejects(openai.chat.completions.create({ model: 'sim-cut-5', messages }), (error) => error instanceof APIError && error.status === 503 && error.code === 'llm_unavailable');
  assert.equal(sent.length, 3);
});

test('a client that aborts stops waiting', async () => {
  const stream = await openai.chat.completions.create({ model: 'sim-stall-5', messages, stream: true });

  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.content) stream.controller.abort();
  }
});
