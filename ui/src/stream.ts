// Asks the server and reads its answer as it comes: server-sent events, each a chunk of OpenAI's API.

/** Cuts text that comes in any pieces into the data of server-sent events (WHATWG HTML, §9.2.6). */
export class Events {
  /** What came since the last event that was whole; joined only when something ends, as a line may have megabytes. */
  private rest: string[] = [];
  /** The half of a line's end that may go on with the next piece. */
  private half = "";

  /** The events that are whole now. */
  push(text: string): string[] {
    const piece = this.half + text;
    this.half = piece.endsWith("\r") ? "\r" : "";
    this.rest.push(piece.slice(0, piece.length - this.half.length));
    if (!/[\r\n]/.test(piece)) return [];
    const blocks = this.rest.join("").replace(/\r\n?/g, "\n").split("\n\n");
    this.rest = [blocks.pop() ?? ""];
    return blocks.map(block => data(block)).filter(each => each !== "");
  }
}

function data(block: string): string {
  const lines = block.split("\n").filter(line => line.startsWith("data:"));
  return lines.map(line => line.slice(5).replace(/^ /, "")).join("\n");
}

export interface Ending {
  /** Why it ended, as the server names it; null when it did not say. */
  reason: string | null;
  promptTokens: number | null;
  tokens: number | null;
  /** What the heads read, where it was asked for. */
  attention: unknown;
}

interface Chunk {
  error?: { message: string };
  choices?: { text?: string; delta?: { content?: string | null }; finish_reason: string | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
  attention?: unknown;
}

/** Streams an answer: `say` hears each piece of its text, `over` that it is whole. Throws what went wrong, in words. */
export async function ask(
  route: string,
  body: object,
  signal: AbortSignal,
  say: (text: string) => void,
  over: () => void = () => {},
): Promise<Ending> {
  const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await post(route, streamed, signal);
  const ending: Ending = { reason: null, promptTokens: null, tokens: null, attention: null };
  const [events, reader] = [
    new Events(),
    (response.body as ReadableStream<Uint8Array>)
      .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
      .getReader(),
  ];
  for (;;) {
    const { value, done } = await reader.read().catch(error => {
      throw signal.aborted ? error : new Error("The connection broke before the answer was whole.");
    });
    if (done) throw new Error("The answer ended before it was whole.");
    for (const event of events.push(value)) {
      if (event === "[DONE]") return ending;
      const told = ending.reason !== null;
      take(JSON.parse(event) as Chunk, ending, say);
      if (!told && ending.reason !== null) over();
    }
  }
}

function take(chunk: Chunk, ending: Ending, say: (text: string) => void): void {
  if (chunk.error) throw new Error(chunk.error.message);
  for (const choice of chunk.choices ?? []) {
    const text = choice.text ?? choice.delta?.content ?? "";
    if (text) say(text);
    ending.reason = choice.finish_reason ?? ending.reason;
  }
  ending.attention ??= chunk.attention ?? null;
  if (chunk.usage) [ending.promptTokens, ending.tokens] = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
}

/** Sends JSON; throws the server's own words when it refuses. */
export async function post(route: string, body: object, signal?: AbortSignal): Promise<Response> {
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  const response = await fetch(route, request).catch(error => {
    throw signal?.aborted ? error : new Error("The server does not answer. Is it still running?");
  });
  if (!response.ok) throw new Error(await refusal(response));
  return response;
}

async function refusal(response: Response): Promise<string> {
  const said = (await response.json().catch(() => null)) as Chunk | null;
  const message = said?.error?.message ?? `the server answered with status ${response.status}`;
  const after = response.headers.get("Retry-After");
  return after ? `${message} (try again in ${after} s)` : message;
}
