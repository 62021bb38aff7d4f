// The head of the report: what was run, in numbers, and what its facts do and do not mean.

import { el, missing, prose, section, table } from "./dom";
import { rangeWords } from "./measures";
import type { Lens, Maybe, Text } from "./lens";
import { mean, number, short, whole } from "./scale";

/** The first words of the text, and how much of it is shown. */
const SHOWN = 60;

export function run(lens: Lens): HTMLElement {
  const { model, run, texts } = lens;
  const tokens = run.tokens ?? texts.reduce((sum, text) => sum + text.tokens.length, 0);
  const numbers: [string, string | null][] = [
    ["Model", [model.name, model.type && `(${model.type})`].filter(Boolean).join(" ") || null],
    ["Parameters", model.parameters === null ? null : short(model.parameters)],
    ["Layers × heads", `${model.layers} × ${model.heads}`],
    ["Key/value heads", value(model.kv_heads)],
    ["Head dimension", value(model.head_dim)],
    ["Context", model.context === null ? null : `${whole(model.context)} tokens`],
    [
      "Read",
      `${whole(tokens)} tokens in ${texts.length === 1 ? `one text${texts[0].name ? ` (${texts[0].name})` : ""}` : `${whole(run.texts ?? texts.length)} texts`}`,
    ],
    ["Kernel", run.kernel],
    ["Time", run.seconds === null ? null : `${number(run.seconds)} seconds`],
  ];
  for (const range of run.ranges) numbers.push([`Range “${range.name}”`, rangeWords(lens, range)]);
  return section(
    "run",
    "What was run",
    el("dl", { class: "numbers" }, ...numbers.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text ?? "not given")))),
    ...texts.slice(0, 1).map(excerpt),
    texts.length > 1 ? list(texts) : null,
    prose(
      "For each head and each token, attention is a set of weights that sum to one: ",
      "the shares in which the head mixes what earlier tokens offer. ",
      "The facts below are computed from all of those weights, inside the kernel that computes the attention itself. ",
      el("strong", {}, "Weights are not an explanation:"),
      " they say what was read, not what for, nor whether the prediction depends on it. ",
      "Whether a head is needed is told by leaving it out (ablation).",
    ),
    run.labels.length
      ? el("ul", { class: "labels", "aria-label": "Sampled or approximate" }, ...run.labels.map(label => el("li", {}, label)))
      : null,
  );
}

const value = (count: Maybe): string | null => (count === null ? null : whole(count));

function excerpt(text: Text): HTMLElement {
  const rest = text.tokens.length - SHOWN;
  const more = rest > 0 ? ` … and ${whole(rest)} more tokens` : "";
  return el("blockquote", {}, text.tokens.slice(0, SHOWN).join(""), el("span", { class: "more" }, more));
}

function list(texts: readonly Text[]): HTMLElement {
  const most = 20;
  const rows = texts.slice(0, most).map((text, index) => {
    const loss = mean(text.loss ?? []);
    return [text.name ?? `text ${index + 1}`, whole(text.tokens.length), loss === null ? "not measured" : number(loss)];
  });
  const left = texts.length - most;
  return el(
    "div",
    {},
    table({ "aria-label": "Texts" }, ["Text", "Tokens", "Loss, nats a token"], rows),
    left > 0 ? missing(`${whole(left)} more texts count in all means and are not listed.`) : null,
    prose("Means over rows are over all texts. Maps, positions and tokens are those of the first."),
  );
}
