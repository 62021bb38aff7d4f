// The server's page: prompts, answers as they stream, and what the engine does meanwhile.

import { el, select, toggle } from "./dom";
import { engine } from "./engine";
import { Pane, type Settings } from "./pane";
import { whole } from "./scale";
import { post } from "./stream";
import { themeSwitch } from "./theme";

const main = document.querySelector("main") as HTMLElement;
const settings: Settings = { chat: false, tokens: 200, temperature: null, attention: false };

const panes = [
  new Pane("First prompt", "Once upon a time", () => settings),
  new Pane("Second prompt", "Once upon a time there was a king", () => settings),
];
const name = el("span", { class: "model" });
const notice = el("p", { class: "problem", role: "alert" });
const mode = el("span", {});
const attention = el("span", {});
const both = el("button", { type: "button", hidden: true, onclick: () => panes.forEach(pane => void pane.run()) }, "Ask both at once");
panes[1].element.hidden = true;

main.replaceChildren(
  el(
    "header",
    {},
    el("h1", {}, "regard ", name),
    themeSwitch(dark => panes.forEach(pane => pane.explorer.dark(dark))),
  ),
  notice,
  el(
    "div",
    { class: "controls settings" },
    mode,
    numberField("Tokens", 1, 100_000, 1, 200, value => (settings.tokens = value ?? 200)),
    numberField("Temperature", 0, 2, 0.1, null, value => (settings.temperature = value)),
    toggle("two prompts side by side", false, beside),
    both,
    attention,
  ),
  el("div", { class: "panes" }, ...panes.map(pane => pane.element)),
  engine(),
);
void know();

function beside(on: boolean): void {
  panes[1].element.hidden = both.hidden = !on;
  main.querySelector(".panes")?.classList.toggle("two", on);
}

interface Served {
  id: string;
  /** Tokens whose attention is told. */
  max_attention_len?: number;
}

/** Offers to see what heads read, or says how it can be allowed. */
function offer(tokens: number): void {
  if (tokens === 0) {
    return attention.replaceChildren(
      el("span", { class: "hint" }, "To see what each head reads, start the server with ", el("code", {}, "--attention 512"), "."),
    );
  }
  settings.attention = true;
  const label = `what each head reads, of up to ${whole(tokens)} tokens`;
  attention.replaceChildren(toggle(label, true, on => (settings.attention = on)));
}

/** Learns what is served: its name, and whether it has a chat template. */
async function know(): Promise<void> {
  try {
    const list = (await (await fetch("/v1/models")).json()) as { data: Served[] };
    name.textContent = `· ${list.data[0].id}`;
    document.title = `regard · ${list.data[0].id}`;
    offer(list.data[0].max_attention_len ?? 0);
    await post("/tokenize", { prompt: "a" });
  } catch (error) {
    notice.textContent = (error as Error).message;
    return;
  }
  const chats = await post("/tokenize", { messages: [{ role: "user", content: "a" }] }).then(
    () => true,
    () => false,
  );
  if (!chats) return;
  const options = [
    { value: "chat", text: "chat" },
    { value: "text", text: "continue a text" },
  ];
  const choose = (value: string): void => {
    settings.chat = value === "chat";
    for (const pane of panes) (pane.clear(), pane.change());
  };
  mode.replaceChildren(select("Mode", options, "chat", choose));
  choose("chat");
}

/** A number, or null when the field is empty or holds none. */
function numberField(
  label: string,
  min: number,
  max: number,
  step: number,
  value: number | null,
  change: (value: number | null) => void,
): HTMLElement {
  const field = el("input", {
    type: "number",
    id: `field-${label}`,
    min,
    max,
    step,
    value,
    placeholder: value === null ? "the model's" : null,
    oninput: () => change(Number.isFinite(field.valueAsNumber) ? field.valueAsNumber : null),
  });
  return el("span", { class: "choice" }, el("label", { for: field.id }, label), field);
}
