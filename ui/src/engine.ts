// What the engine does now: its pages, its batch, its cache and its speed, read from /metrics twice a second.

import { el, section, svg } from "./dom";
import { number, percent, whole } from "./scale";

export type Numbers = Record<string, number>;

/** Prometheus's text format: the numbers named `regard:…`, those of one name added up. */
export function parse(text: string): Numbers {
  const found: Numbers = {};
  for (const line of text.split("\n")) {
    const match = /^regard:(\w+)(?:\{.*\})? (\S+)$/.exec(line);
    if (match) found[match[1]] = (found[match[1]] ?? 0) + Number(match[2]);
  }
  return found;
}

/** Milliseconds between two looks, and looks that the curve shows. */
const EVERY = 500;
const SHOWN = 120;

export function engine(): HTMLElement {
  const state = el("p", { class: "readout", role: "status" });
  const [bar, words] = [el("div", { class: "pages", role: "img" }), el("p", { class: "page-words" })];
  const list = el("dl", { class: "numbers" });
  const curve = svg("svg", { class: "speed", viewBox: `0 0 ${SHOWN - 1} 40`, preserveAspectRatio: "none", role: "img" });
  const speeds: number[] = [];
  let before: { at: number; numbers: Numbers } | null = null;
  const look = async (): Promise<void> => {
    try {
      const response = await fetch("/metrics");
      if (!response.ok) throw new Error(`/metrics answered with status ${response.status}`);
      const [numbers, at] = [parse(await response.text()), performance.now()];
      const since = (name: string): number => (before ? (numbers[name] ?? 0) - (before.numbers[name] ?? 0) : 0);
      const speed = before ? since("generation_tokens_total") / ((at - before.at) / 1000) : 0;
      const steps = since("engine_steps_total");
      speeds.push(speed);
      if (speeds.length > SHOWN) speeds.shift();
      pages(bar, words, numbers);
      list.replaceChildren(...entries(numbers, speed, steps ? since("engine_tokens_total") / steps : null));
      draw(curve, speeds);
      before = { at, numbers };
      state.textContent = "";
    } catch (error) {
      const down = error instanceof TypeError;
      state.textContent = down ? "The server does not answer. What is shown is the last that it said." : (error as Error).message;
    }
    setTimeout(look, EVERY);
  };
  void look();
  return section(
    "engine",
    "The engine",
    state,
    bar,
    words,
    list,
    el("figure", { class: "chart" }, el("figcaption", {}, "Tokens generated a second, in the last minute"), curve),
  );
}

/** The bar of pages: held by requests, cached for the next, free. */
function pages(bar: HTMLElement, words: HTMLElement, numbers: Numbers): void {
  const { kv_cache_pages: all = 0, kv_cache_pages_free: free = 0, kv_cache_pages_cached: cached = 0 } = numbers;
  const parts = [
    ["held", all - free - cached, "by requests"],
    ["cached", cached, "for prompts that begin alike"],
    ["free", free, ""],
  ] as const;
  bar.replaceChildren(...parts.map(([kind, count]) => el("span", { class: kind, style: `width:${all ? (100 * count) / all : 0}%` })));
  const texts = parts.map(([kind, count, what]) => el("span", { class: `key-${kind}` }, `${whole(count)} ${kind}${what && " " + what}`));
  words.replaceChildren(`Of ${whole(all)} pages: `, ...texts);
  bar.setAttribute("aria-label", words.textContent ?? "");
}

function entries(numbers: Numbers, speed: number, batch: number | null): HTMLElement[] {
  const count = (name: string): string => (numbers[name] === undefined ? "not told" : whole(numbers[name]));
  const { prefix_cache_queries_total: asked = 0, prefix_cache_hits_total: hit = 0 } = numbers;
  const all: [string, string][] = [
    ["Running", count("num_requests_running")],
    ["Waiting", count("num_requests_waiting")],
    ["Tokens in a step", batch === null ? "no step now" : number(batch)],
    ["Tokens a second", number(speed)],
    ["Prompt tokens from the cache", asked ? `${whole(hit)} of ${whole(asked)}, ${percent(hit / asked)}` : "none asked for yet"],
    ["Tokens generated", count("generation_tokens_total")],
    ["Preemptions", count("num_preemptions_total")],
  ];
  return all.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}

function draw(curve: SVGElement, speeds: readonly number[]): void {
  const most = Math.max(1, ...speeds);
  const points = speeds.map((speed, at) => `${SHOWN - speeds.length + at},${(38 - 36 * (speed / most)).toFixed(1)}`);
  curve.replaceChildren(svg("polyline", { points: points.join(" "), "vector-effect": "non-scaling-stroke" }));
  curve.setAttribute("aria-label", `${number(speeds[speeds.length - 1] ?? 0)} tokens a second now, ${number(most)} at most`);
}
