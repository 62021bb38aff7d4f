// A server that answers as regard's does, with as much of it as its page asks for.

import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Lens } from "../src/lens";
import { small } from "./fixture";

export interface Mock {
  url: string;
  /** Bodies that were posted, with their routes. */
  asked: { route: string; body: any }[];
  /** Answers whose client went away before the end. */
  left: number;
  close(): Promise<void>;
}

export interface Manner {
  chats: boolean;
  /** Milliseconds between tokens. */
  pause: number;
  /** Tokens whose attention is told. */
  attention: number;
}

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
/** Milliseconds that the reading of the prompt "slow" takes. */
export const SLOW = 3000;
const WORDS = ["The", " old", " fox", " said", " <b>", "“", "no", "”", ".", "\n"];

export async function serve(manner: Manner): Promise<Mock> {
  const mock: Mock = { url: "", asked: [], left: 0, close: async () => {} };
  let generated = 0;
  const server: Server = createServer(async (request, response) => {
    const route = request.url ?? "";
    const json = (status: number, value: unknown, headers = {}): void =>
      void response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(value));
    const refuse = (status: number, message: string, headers = {}): void =>
      json(status, { error: { message, type: "invalid_request_error", param: null, code: null } }, headers);
    if (route === "/")
      return void response
        .writeHead(200, { "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY })
        .end(await readFile("dist/serve.html"));
    if (route === "/v1/models")
      return json(200, { object: "list", data: [{ id: "story", object: "model", max_attention_len: manner.attention }] });
    if (route === "/metrics") return void response.writeHead(200, { "Content-Type": "text/plain" }).end(metrics((generated += 3)));
    const body = JSON.parse(await text(request));
    mock.asked.push({ route, body });
    if (route === "/tokenize")
      return body.messages && !manner.chats ? refuse(400, "this model has no chat template") : json(200, { count: 1, tokens: [1] });
    if (body.max_tokens === 0 && body.attention) return again(body, json, refuse);
    if (!(body.max_tokens >= 1)) return refuse(400, `max_tokens is ${body.max_tokens} and must be a whole number from 0`);
    const prompt: string = body.prompt ?? body.messages.at(-1).content;
    if (prompt === "busy") return refuse(503, "as many prompts as may wait are waiting", { "Retry-After": "2" });
    await stream(response, route, body, prompt, manner, mock);
  });
  await new Promise<void>(done => server.listen(0, "127.0.0.1", done));
  mock.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  mock.close = () => new Promise(done => (server.close(() => done()), server.closeAllConnections()));
  return mock;
}

async function stream(response: ServerResponse, route: string, body: any, prompt: string, manner: Manner, mock: Mock): Promise<void> {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  let gone = false;
  response.on("close", () => (gone = !response.writableFinished) && mock.left++);
  const chat = route.includes("chat");
  const event = (value: unknown): void => void response.write(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
  const piece = (content: string, finish_reason: string | null): object => ({
    choices: [chat ? { index: 0, delta: { content }, finish_reason } : { index: 0, text: content, finish_reason }],
  });
  for (let at = 0; at < body.max_tokens && !gone; at++) {
    if (prompt === "fault" && at === 3) return (event({ error: { message: "the model could not compute it" } }), void response.end());
    if (prompt === "cut" && at === 3) return void response.end();
    if (prompt === "break" && at === 3) return void response.destroy();
    event(piece(WORDS[at % WORDS.length], at + 1 === body.max_tokens ? "length" : null));
    await new Promise(done => setTimeout(done, manner.pause));
  }
  event({ choices: [], usage: { prompt_tokens: 4, completion_tokens: body.max_tokens } });
  if (body.attention) {
    if (prompt === "slow") await new Promise(done => setTimeout(done, SLOW));
    if (prompt === "unread") return (event({ error: { message: "the model could not compute it" } }), void response.end());
    const tokens = [...split(prompt), ...Array.from({ length: body.max_tokens }, (_, at) => WORDS[at % WORDS.length])];
    event({ choices: [], attention: prompt === "unlike" ? { format: "regard-lens/7" } : reading(tokens) });
  }
  event("[DONE]");
  response.end();
}

/** A text's tokens, as this server cuts it. */
const split = (prompt: string): string[] => prompt.split(/(?= )/);

/** Every token that was told of, by its id. */
const vocabulary: string[] = [];

function id(token: string): number {
  if (!vocabulary.includes(token)) vocabulary.push(token);
  return vocabulary.indexOf(token);
}

/** What is told of a text: of heads of known patterns, two layers of eight. Each head that is left out costs a quarter of a nat. */
export function reading(tokens: readonly string[], without: readonly unknown[] = []): Lens {
  const { lens } = small(tokens, 2);
  const [text] = lens.texts;
  const loss = text.loss!.map(value => (value === null ? null : value + without.length / 4));
  return { ...lens, texts: [{ ...text, ids: tokens.map(id), loss }], position_loss: loss };
}

/** The same text without some heads. One that leaves out layer 1, head 7 is refused. */
function again(body: any, json: (status: number, value: unknown) => void, refuse: (status: number, message: string) => void): void {
  const { without } = body.attention;
  if (without.some(([layer, head]: number[]) => layer === 1 && head === 7))
    return refuse(429, "8 requests with attention are being answered");
  const tokens = body.prompt.map((at: number) => vocabulary[at]);
  json(200, { choices: [{ index: 0, text: "", finish_reason: "length" }], attention: reading(tokens, without) });
}

async function text(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

function metrics(generated: number): string {
  const numbers = {
    num_requests_running: 2,
    num_requests_waiting: 1,
    kv_cache_pages: 1000,
    kv_cache_pages_free: 600,
    kv_cache_pages_cached: 250,
    prefix_cache_queries_total: 400,
    prefix_cache_hits_total: 100,
    num_preemptions_total: 0,
    generation_tokens_total: generated,
    engine_steps_total: generated,
    engine_tokens_total: generated * 4,
  };
  return Object.entries(numbers)
    .map(([name, value]) => `# TYPE regard:${name} gauge\nregard:${name}{model_name="story"} ${value}\n`)
    .join("");
}
