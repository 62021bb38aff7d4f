// One prompt and its answer as it streams: a text that is continued, or a conversation.

import { el } from "./dom";
import { Explorer } from "./explorer";
import { number, whole } from "./scale";
import { ask, type Ending } from "./stream";

export interface Settings {
  chat: boolean;
  tokens: number;
  /** Null leaves it to the model. */
  temperature: number | null;
  /** Whether each answer comes with what the heads read. */
  attention: boolean;
}

interface Message {
  role: "user" | "assistant";
  content: string;
}

const REASONS: Record<string, string> = { stop: "it came to its end", length: "it reached the number of tokens", abort: "it was stopped" };

export class Pane {
  private readonly prompt = el("textarea", { rows: 4, maxlength: 100000, "aria-label": "Prompt" });
  private readonly go = el("button", { type: "submit", class: "main" });
  private readonly stopper = el("button", { type: "button", disabled: true, onclick: () => this.control?.abort() }, "Stop");
  private readonly again = el("button", { type: "button", onclick: () => this.clear() }, "New conversation");
  private readonly problem = el("p", { class: "problem", role: "alert" });
  private readonly log = el("div", { class: "log", role: "log", tabindex: 0, "aria-live": "polite", "aria-label": "Answer" });
  private readonly state = el("p", { class: "readout", role: "status" });
  private control: AbortController | null = null;
  /** Whether the end of the answer is kept in sight: until the reader scrolls up. */
  private follows = true;
  private messages: Message[] = [];
  readonly explorer: Explorer;
  readonly element: HTMLElement;

  constructor(
    name: string,
    text: string,
    private readonly settings: () => Settings,
  ) {
    this.explorer = new Explorer(name.toLowerCase().replace(/\W+/g, "-"));
    this.prompt.value = text;
    this.prompt.addEventListener("keydown", event => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      void this.run();
    });
    const send = (event: Event): void => (event.preventDefault(), void this.run());
    const form = el("form", { onsubmit: send }, this.prompt, el("div", { class: "controls" }, this.go, this.stopper, this.again));
    this.log.addEventListener("scroll", () => (this.follows = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40));
    this.element = el("section", { class: "pane", "aria-label": name }, form, this.problem, this.log, this.state, this.explorer.element);
    this.change();
  }

  /** Says what its button does, after the settings changed. */
  change(): void {
    const { chat } = this.settings();
    this.go.textContent = chat ? "Send" : "Continue";
    this.again.hidden = !chat;
  }

  clear(): void {
    this.control?.abort();
    this.messages = [];
    this.explorer.clear();
    this.log.replaceChildren();
    this.problem.textContent = this.state.textContent = "";
  }

  /** Asks for the answer to the prompt, and shows it as it comes. */
  async run(): Promise<void> {
    if (this.control) return;
    const text = this.prompt.value;
    const { chat, tokens, temperature, attention } = this.settings();
    this.control = new AbortController();
    this.busy(true);
    this.problem.textContent = "";
    this.explorer.clear();
    const answer = this.begin(chat, text);
    this.follows = true;
    const limits = { max_tokens: tokens, ...(temperature === null ? {} : { temperature }), ...(attention ? { attention: {} } : {}) };
    const messages: Message[] = [...this.messages, { role: "user", content: text }];
    const [route, body] = chat ? ["/v1/chat/completions", { messages, ...limits }] : ["/v1/completions", { prompt: text, ...limits }];
    const clock = new Clock();
    try {
      const say = (piece: string): void => {
        if (clock.tick()) this.state.textContent = "";
        answer.append(piece);
        if (this.follows) this.log.scrollTop = this.log.scrollHeight;
      };
      const over = (): void => {
        clock.stop();
        if (attention) this.state.textContent = "Reading once more what each head reads …";
      };
      const ending = await ask(route, body, this.control.signal, say, over);
      this.state.textContent = clock.words(ending);
      if (ending.attention) this.explorer.show(ending.attention);
    } catch (error) {
      if (this.control.signal.aborted) this.state.textContent = `Stopped after ${clock.seconds()} s.`;
      else [this.problem.textContent, this.state.textContent] = [(error as Error).message, ""];
    }
    if (chat && !answer.textContent) {
      // Nothing came: the prompt stays in its field, to be sent again.
      answer.previousElementSibling?.remove();
      answer.remove();
    } else if (chat) {
      this.messages = [...messages, { role: "assistant", content: answer.textContent ?? "" }];
      this.prompt.value = "";
    }
    this.control = null;
    this.busy(false);
  }

  /** The place where the answer goes, after what it answers. */
  private begin(chat: boolean, text: string): HTMLElement {
    if (!chat) {
      const answer = el("span", { class: "answer" });
      this.log.replaceChildren(el("span", { class: "asked" }, text), answer);
      return answer;
    }
    if (this.messages.length === 0) this.log.replaceChildren();
    const answer = el("div", { class: "answer turn" });
    this.log.append(el("div", { class: "asked turn" }, text), answer);
    return answer;
  }

  private busy(on: boolean): void {
    this.go.disabled = on;
    this.stopper.disabled = !on;
    if (on) this.state.textContent = "Waiting for the first token …";
  }
}

/** When an answer began, and when its first piece came. */
class Clock {
  private readonly start = performance.now();
  private first: number | null = null;
  private last: number | null = null;

  /** Whether this is the first piece. */
  tick(): boolean {
    const first = this.first === null;
    this.first ??= performance.now();
    return first;
  }

  /** The text is whole. */
  stop(): void {
    this.last ??= performance.now();
  }

  seconds(): string {
    return number((performance.now() - this.start) / 1000);
  }

  words({ reason, promptTokens, tokens }: Ending): string {
    const wait = this.first === null ? "" : `, the first after ${number((this.first - this.start) / 1000)} s`;
    const after = this.first === null ? 0 : ((this.last ?? performance.now()) - this.first) / 1000;
    const speed = tokens !== null && tokens > 1 && after > 0 ? `, then ${number((tokens - 1) / after)} a second` : "";
    const count = tokens === null ? "Done" : `${whole(tokens)} tokens`;
    const prompt = promptTokens === null ? "" : ` for a prompt of ${whole(promptTokens)}`;
    return `${count}${prompt}${wait}${speed}; ${REASONS[reason ?? ""] ?? "it ended"}.`;
  }
}
