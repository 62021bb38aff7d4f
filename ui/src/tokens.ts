// The token view: the text itself; a token is chosen, and what it read is shaded, joined by lines, and listed.

import { css, ink, sequential } from "./colour";
import { atWidth, el, missing, select, shown, svg, toggle } from "./dom";
import { headName } from "./facts";
import type { Lens } from "./lens";
import type { Pyramid } from "./pyramid";
import { isRead, reads, type Reading } from "./reading";
import { percent, shade, whole } from "./scale";
import type { Store } from "./store";

/** More tokens than this are not laid out one by one. */
const MOST = 4096;

/** The last colour is for this weight at least: a row that spreads its attention stays pale. */
const FAINT = 0.25;

export function tokenView(lens: Lens, store: Store, pyramid: () => Pyramid | null): HTMLElement {
  const { tokens } = lens.texts[0];
  const title = el("h3", {}, "What a token reads");
  if (tokens.length > MOST) {
    const text =
      `This text has ${whole(tokens.length)} tokens. Weights of single tokens are kept for short texts only (2,048 tokens); ` +
      "the heat map shows which parts read which.";
    return el("div", { class: "token-view" }, title, missing(text));
  }
  const words = tokens.map((token, index) =>
    el(
      "span",
      { role: "option", id: `${store.place}token-${index}`, "aria-label": `token ${index}, ${shown(token)}` },
      token.endsWith("\n") ? `⏎${token}` : token,
    ),
  );
  const lines = svg("svg", { class: "lines", "aria-hidden": "true" });
  const text = el(
    "div",
    { class: "tokens", role: "listbox", tabindex: 0, "aria-label": "Tokens of the text. Left and right keys choose one." },
    ...words,
    lines,
  );
  const list = el("div", { class: "reading", "aria-live": "polite" });
  let [direction, joined] = ["reads", true];
  const update = (): void => {
    const [token, head] = [store.get("token"), lens.heads[store.get("head")]];
    const map = pyramid();
    const found = map && (direction === "reads" ? reads : isRead)(map, token);
    const reading = found && direction === "reads" && store.get("hideSinks") ? without(found, lens.run.first_tokens) : found;
    text.setAttribute("aria-activedescendant", `${store.place}token-${token}`);
    words.forEach((word, index) => word.setAttribute("aria-selected", String(index === token)));
    tint(words, reading, store);
    join(lines, text, words[token], joined && reading ? reading.weights.map(([at, weight]) => [words[at], weight]) : []);
    list.replaceChildren(...say(lens, token, direction, reading, headName(head)));
  };
  store.watch(["token", "head", "dark", "log", "hideSinks"], update);
  atWidth(text, update);
  text.addEventListener("click", event => {
    const index = words.indexOf(event.target as HTMLSpanElement);
    if (index >= 0) store.set({ token: index });
  });
  keys(text, words, store);
  const choices = [
    { value: "reads", text: "what the token reads" },
    { value: "read", text: "who reads the token" },
  ];
  return el(
    "div",
    { class: "token-view" },
    title,
    el(
      "div",
      { class: "controls" },
      select("Show", choices, direction, value => ((direction = value), update())),
      toggle("lines", joined, on => ((joined = on), update())),
    ),
    el("div", { class: "token-columns" }, text, list),
  );
}

/** What is left of a reading when the first tokens are hidden. */
const without = (reading: Reading, first: number): Reading => ({ ...reading, weights: reading.weights.filter(([at]) => at >= first) });

function tint(words: HTMLElement[], reading: Reading | null, store: Store): void {
  for (const word of words) word.removeAttribute("style");
  const most = Math.max(FAINT, reading?.weights[0]?.[1] ?? 0);
  for (const [at, weight] of reading?.weights ?? []) {
    const colour = sequential(shade(weight, most, store.get("log")) * 0.9 + 0.1, store.get("dark"));
    words[at].style.cssText = `background:${css(colour)};color:${ink(colour)}`;
  }
}

/** A curve from the chosen token to each that it reads, as wide as the weight. */
function join(lines: SVGElement, text: HTMLElement, from: HTMLElement, to: [HTMLElement, number][]): void {
  // Its own size must not count in what it is measured by.
  for (const side of ["width", "height"]) lines.setAttribute(side, "0");
  lines.setAttribute("width", String(text.scrollWidth));
  lines.setAttribute("height", String(text.scrollHeight));
  const middle = (word: HTMLElement): [number, number] => [word.offsetLeft + word.offsetWidth / 2, word.offsetTop + 2];
  const [x, y] = middle(from);
  const curves = to
    .filter(([word, weight]) => word !== from && weight > 0.005)
    .map(([word, weight]) => {
      const [u, v] = middle(word);
      const rise = Math.min(y, v) - Math.min(26, 6 + Math.abs(u - x) / 8);
      return svg("path", {
        d: `M${x} ${y}C${x} ${rise} ${u} ${rise} ${u} ${v}`,
        "stroke-width": 0.75 + 4 * weight,
        opacity: 0.3 + 0.6 * weight,
      });
    });
  lines.replaceChildren(...curves);
}

function say(lens: Lens, token: number, direction: string, reading: Reading | null, head: string): (Node | string)[] {
  const { tokens, loss, ids } = lens.texts[0];
  const name = `Token ${whole(token)} “${shown(tokens[token])}”`;
  const known = loss?.[token] ?? null;
  const id = ids?.[token] ?? null;
  const number = id === null ? "" : ` Its number in the vocabulary is ${id}.`;
  const surprise = (known === null ? "" : ` The model gave it a probability of ${percent(Math.exp(-known))}.`) + number;
  if (!reading) return [el("p", {}, `${name}. What single tokens read is not in this report.${surprise}`)];
  const verb = direction === "reads" ? "reads, by" : "is read, by";
  if (reading.weights.length === 0) return [el("p", {}, `${name} ${verb} ${head}: nothing that is among the largest weights.${surprise}`)];
  const rest = 1 - reading.weights.reduce((sum, [, weight]) => sum + weight, 0);
  const listed = reading.weights
    .slice(0, 12)
    .map(([at, weight]) =>
      el(
        "li",
        {},
        el("span", { class: "word" }, shown(tokens[at])),
        el("span", { class: "at" }, whole(at)),
        el("span", { class: "weight", style: `--share:${Math.min(1, weight)}` }, percent(weight)),
      ),
    );
  const more = reading.weights.length - listed.length;
  const tail =
    direction === "reads"
      ? rest > 0.005
        ? `All other tokens together: ${percent(rest)}.`
        : ""
      : more > 0
        ? `And ${whole(more)} more.`
        : "";
  return [
    el("p", {}, `${name} ${verb} ${head}:`),
    el("ol", {}, ...listed),
    el(
      "p",
      { class: "note" },
      `${tail}${surprise}${reading.exact ? "" : " Weights are about right: this report holds them in 255 steps."}`,
    ),
  ];
}

function keys(text: HTMLElement, words: HTMLElement[], store: Store): void {
  text.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = store.get("token");
    const to = {
      ArrowLeft: here - 1,
      ArrowRight: here + 1,
      ArrowUp: above(words, here, -1),
      ArrowDown: above(words, here, 1),
      Home: 0,
      End: words.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const token = Math.min(words.length - 1, Math.max(0, to));
    store.set({ token });
    words[token].scrollIntoView({ block: "nearest" });
  });
}

/** The token over or under another, in the next line that way. */
function above(words: HTMLElement[], here: number, way: 1 | -1): number {
  const from = words[here];
  let best = here;
  for (let at = here + way, line: number | null = null; at >= 0 && at < words.length; at += way) {
    const top = words[at].offsetTop;
    if (top === from.offsetTop) continue;
    if (line !== null && top !== line) break;
    line = top;
    const off = (word: HTMLElement): number => Math.abs(word.offsetLeft - from.offsetLeft);
    if (best === here || off(words[at]) < off(words[best])) best = at;
  }
  return best;
}
