// The gallery: a small heat map of every head, drawn when it comes into sight.

import { open } from "./dashboard";
import { el, missing, prose, section, select } from "./dom";
import { ranked } from "./facts";
import type { Head, Lens } from "./lens";
import { brief, measures, within } from "./measures";
import { picture, type Look } from "./paint";
import { Pyramid } from "./pyramid";
import type { Store } from "./store";

/** Pixels to a side. */
const SIZE = 88;

export function gallery(lens: Lens, store: Store): HTMLElement {
  const title = "Every head";
  if (lens.heads.every(head => head.maps.length === 0)) {
    return section(`${store.place}gallery`, title, missing("This report holds no heat maps."));
  }
  const place = el("div", { class: "gallery", style: `--heads:${lens.model.heads}` });
  const look = (): Look => ({ log: store.get("log"), dark: store.get("dark"), hidden: store.get("hideSinks") ? lens.run.first_tokens : 0 });
  const sight = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      sight.unobserve(entry.target);
      draw(entry.target as HTMLCanvasElement, lens, look());
    }
  });
  let order = "layer";
  const buttons = lens.heads.map((head, index) => thumbnail(head, index, store));
  const arrange = (): void => {
    const measure = measures(lens).find(({ key }) => key === order);
    const heads = measure ? ranked(lens.heads, measure.of) : lens.heads;
    place.classList.toggle("aligned", order === "layer" && lens.model.heads <= 12);
    const rest = measure ? lens.heads.filter(head => measure.of(head) === null) : [];
    place.replaceChildren(
      ...[...heads, ...rest].map(head => {
        const button = buttons[lens.heads.indexOf(head)];
        button.querySelector(".value")!.textContent = measure ? ` ${brief(measure, measure.of(head))}` : "";
        return button;
      }),
    );
  };
  arrange();
  store.watch(["log", "hideSinks", "dark"], () => {
    for (const canvas of place.querySelectorAll("canvas")) sight.observe(canvas);
  });
  store.watch(["head"], () => buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === store.get("head")))));
  const orders = [
    { value: "layer", text: "layer" },
    ...measures(lens)
      .filter(({ of }) => lens.heads.some(head => of(head) !== null))
      .map(measure => ({ value: measure.key, text: within(measure) })),
  ];
  return section(
    `${store.place}gallery`,
    title,
    prose(
      "Rows are the tokens that read, from the top down; columns the tokens that are read, from the left. ",
      "Colours go from none to the most of each head.",
    ),
    select("Order by", orders, order, value => ((order = value), arrange())),
    place,
  );
}

function thumbnail(head: Head, index: number, store: Store): HTMLButtonElement {
  return el(
    "button",
    { type: "button", onclick: () => open(store, index), "aria-label": `Heat map of layer ${head.layer}, head ${head.head}` },
    head.maps.length ? el("canvas", { width: SIZE, height: SIZE, "data-head": index }) : el("span", { class: "no-map" }, "no map"),
    el("span", { class: "name" }, `${head.layer}·${head.head}`, el("span", { class: "value" })),
  );
}

function draw(canvas: HTMLCanvasElement, lens: Lens, look: Look): void {
  const tokens = lens.texts[0].tokens.length;
  const pyramid = Pyramid.of({ ...lens.heads[Number(canvas.dataset.head)], top: null }, tokens);
  const ratio = Math.min(2, devicePixelRatio);
  canvas.width = canvas.height = Math.round(SIZE * ratio);
  const context = canvas.getContext("2d");
  if (!pyramid || !context) return;
  const level = pyramid.level(SIZE / tokens, 1);
  context.imageSmoothingEnabled = level.rows > SIZE;
  context.drawImage(
    picture(level, look),
    0,
    0,
    (level.columns * level.block * canvas.width) / tokens,
    (level.rows * level.block * canvas.height) / tokens,
  );
}
