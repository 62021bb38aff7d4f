// Charts in SVG, as wide as their place: lines over positions and bars over kinds, each with a read-out for pointer and keys.

import { atWidth, el, svg } from "./dom";
import type { Maybe } from "./lens";
import { tick, ticks } from "./scale";

export interface Series {
  name: string;
  values: readonly Maybe[];
  /** The class that gives the line its colour. */
  look: "main" | "plain" | "other";
}

export interface LineChart {
  /** What the vertical axis counts. */
  title: string;
  series: Series[];
  /** A shaded band from the least to the most. */
  band: { name: string; low: readonly Maybe[]; high: readonly Maybe[] } | null;
  height: number;
  /** Horizontal position of a value: tokens a bin. */
  width: number;
  /** Where the values lie, if not so far apart: rising, from 0 on. */
  at?: readonly number[];
  /** What that is, if not the position. */
  by?: string;
  /** The range always includes zero. */
  zero: boolean;
  /** What a bin is called in the read-out. */
  bin(index: number): string;
  value(value: Maybe): string;
  /** What is told after the values. */
  more?(index: number): string;
}

const MARGIN = { left: 46, right: 12, top: 8, bottom: 22 };

interface Frame {
  /** Of a value. */
  x(index: number): number;
  /** Of a horizontal position, and the last of these. */
  across(position: number): number;
  last: number;
  y(value: number): number;
  width: number;
  height: number;
}

export function lineChart(chart: LineChart): HTMLElement {
  const count = Math.max(...chart.series.map(series => series.values.length));
  const place = el("div", {
    class: "plot",
    tabindex: 0,
    role: "img",
    "aria-label": `${chart.title}, ${chart.by ?? "by position"}. Left and right keys read the values.`,
  });
  const out = el("p", { class: "readout", "aria-live": "polite" });
  let frame: Frame | null = null;
  const cross = svg("line", { class: "cross", visibility: "hidden" });
  atWidth(place, width => {
    frame = frameOf(chart, count, width);
    cross.setAttribute("y1", String(MARGIN.top));
    cross.setAttribute("y2", String(chart.height - MARGIN.bottom));
    place.replaceChildren(
      svg("svg", { width, height: chart.height, "aria-hidden": "true" }, ...axes(frame, chart), ...marks(frame, chart), cross),
    );
  });
  const hint = "Point at the chart, or focus it and use the left and right keys, to read values.";
  const say = (index: number | null): void => {
    if (index === null || !frame) return void (cross.setAttribute("visibility", "hidden"), (out.textContent = hint));
    const x = String(frame.x(index));
    for (const end of ["x1", "x2"]) cross.setAttribute(end, x);
    cross.setAttribute("visibility", "visible");
    const values = chart.series.map(series => `${series.name} ${chart.value(series.values[index] ?? null)}`);
    out.textContent = `${chart.bin(index)}: ${values.join(", ")}${chart.more?.(index) ?? ""}`;
  };
  say(null);
  reads(place, count, pixel => (frame ? nearest(frame, count, pixel) : 0), say);
  return el("figure", { class: "chart" }, caption(chart), place, out);
}

function nearest(frame: Frame, count: number, pixel: number): number {
  let best = 0;
  for (let index = 1; index < count; index++) {
    if (Math.abs(frame.x(index) - pixel) < Math.abs(frame.x(best) - pixel)) best = index;
  }
  return best;
}

export interface Bar {
  label: string;
  value: Maybe;
  /** Drawn as a tick beside the bar, to compare with. */
  other: Maybe;
  says: string;
}

export function barChart(title: string, bars: readonly Bar[], height: number): HTMLElement {
  const place = el("div", { class: "plot", tabindex: 0, role: "img", "aria-label": `${title}. Left and right keys read the values.` });
  const out = el("p", { class: "readout", "aria-live": "polite" });
  const most = Math.max(1e-9, ...bars.map(bar => Math.max(bar.value ?? 0, bar.other ?? 0)));
  const rects = bars.map(() => svg("rect", { class: "bar" }));
  atWidth(place, width => {
    const step = (width - MARGIN.left - MARGIN.right) / bars.length;
    const y = (value: number): number => height - MARGIN.bottom - (value / most) * (height - MARGIN.bottom - MARGIN.top);
    const every = Math.ceil(34 / step);
    const parts = bars.flatMap((bar, index) => {
      const x = MARGIN.left + index * step;
      const gap = Math.min(3, step / 5);
      const top = y(bar.value ?? 0);
      for (const [name, value] of Object.entries({ x: x + gap, y: top, width: Math.max(0.5, step - 2 * gap), height: y(0) - top })) {
        rects[index].setAttribute(name, String(value));
      }
      const tick =
        bar.other === null
          ? null
          : svg("line", { class: "other", x1: x + gap / 2, x2: x + step - gap / 2, y1: y(bar.other), y2: y(bar.other) });
      const label = index % every ? null : svg("text", { x: x + step / 2, y: height - 7, "text-anchor": "middle" }, bar.label);
      return [rects[index], tick, label];
    });
    place.replaceChildren(svg("svg", { width, height, "aria-hidden": "true" }, ...rules(width, y, ticks(0, most, 4)), ...parts));
  });
  const say = (index: number | null): void => {
    rects.forEach((rect, at) => rect.classList.toggle("on", at === index));
    out.textContent = index === null ? "Point at a bar, or use the left and right keys." : bars[index].says;
  };
  say(null);
  const at = (pixel: number): number =>
    Math.floor(((pixel - MARGIN.left) / (place.clientWidth - MARGIN.left - MARGIN.right)) * bars.length);
  reads(place, bars.length, at, say);
  return el("figure", { class: "chart" }, el("figcaption", {}, title), place, out);
}

/** Pointer and keys choose one of `count` places; leaving chooses none. */
function reads(place: HTMLElement, count: number, at: (pixel: number) => number, say: (index: number | null) => void): void {
  let index: number | null = null;
  const go = (to: number | null): void => say((index = to === null ? null : Math.max(0, Math.min(count - 1, to))));
  place.addEventListener("pointermove", event => go(at(event.clientX - place.getBoundingClientRect().left)));
  place.addEventListener("pointerleave", () => document.activeElement !== place && go(null));
  place.addEventListener("blur", () => go(null));
  place.addEventListener("keydown", event => {
    const page = Math.max(1, Math.round(count / 10));
    const here = index ?? -1;
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: count - 1, PageUp: here - page, PageDown: here + page }[
      event.key
    ];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(to);
  });
}

function caption(chart: LineChart): HTMLElement {
  const keys = chart.series.map(series => el("span", { class: `key ${series.look}` }, series.name));
  const band = chart.band && el("span", { class: "key band" }, chart.band.name);
  return el("figcaption", {}, chart.title, " ", ...keys, band);
}

function frameOf(chart: LineChart, count: number, width: number): Frame {
  const values = [...chart.series.flatMap(series => [...series.values]), ...(chart.band ? [...chart.band.low, ...chart.band.high] : [])];
  const there = values.filter((value): value is number => value !== null);
  let [low, high] = [there.reduce((a, b) => Math.min(a, b), Infinity), there.reduce((a, b) => Math.max(a, b), -Infinity)];
  if (chart.zero) [low, high] = [Math.min(0, low), Math.max(0, high)];
  if (!(high > low)) high = low + 1;
  const [wide, down] = [width - MARGIN.left - MARGIN.right, chart.height - MARGIN.top - MARGIN.bottom];
  const place = (index: number): number => chart.at?.[index] ?? index * chart.width;
  const last = place(count - 1);
  const across = (position: number): number => MARGIN.left + (last > 0 ? position / last : 0.5) * wide;
  return {
    x: index => across(place(index)),
    across,
    last,
    y: value => MARGIN.top + (1 - (value - low) / (high - low)) * down,
    width,
    height: chart.height,
  };
}

function axes(frame: Frame, chart: LineChart): (SVGElement | null)[] {
  const [bottom, top] = [chart.height - MARGIN.bottom, MARGIN.top];
  const value = (pixel: number): number => {
    const [a, b] = [frame.y(0), frame.y(1)];
    return (pixel - a) / (b - a);
  };
  const places = ticks(0, frame.last, Math.max(2, frame.width / 110)).filter(Number.isInteger);
  const across = places.map(position =>
    svg("text", { x: frame.across(position), y: chart.height - 6, "text-anchor": "middle" }, tick(position)),
  );
  return [...rules(frame.width, frame.y, ticks(value(bottom), value(top), 4)), ...across];
}

function rules(width: number, y: (value: number) => number, values: readonly number[]): SVGElement[] {
  return values.flatMap(value => [
    svg("line", { class: "rule", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
    svg("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, tick(value)),
  ]);
}

function marks(frame: Frame, chart: LineChart): (SVGElement | null)[] {
  const band = chart.band && svg("path", { class: "band", d: area(frame, chart.band.low, chart.band.high) });
  const lines = chart.series.map(series => svg("path", { class: `line ${series.look}`, d: path(frame, series.values) }));
  return [band, ...lines];
}

/** A line that breaks where a value is missing. */
function path(frame: Frame, values: readonly Maybe[]): string {
  let open = false;
  return values
    .map((value, index) => {
      if (value === null) return ((open = false), "");
      const to = `${open ? "L" : "M"}${frame.x(index).toFixed(1)} ${frame.y(value).toFixed(1)}`;
      open = true;
      return values[index + 1] === undefined || values[index + 1] === null ? `${to}h.01` : to;
    })
    .join("");
}

function area(frame: Frame, low: readonly Maybe[], high: readonly Maybe[]): string {
  const there = low.map((_, index) => index).filter(index => low[index] !== null && high[index] !== null);
  const point = (index: number, value: Maybe): string => `${frame.x(index).toFixed(1)} ${frame.y(value as number).toFixed(1)}`;
  if (there.length === 0) return "";
  return `M${[...there.map(index => point(index, high[index])), ...there.reverse().map(index => point(index, low[index]))].join("L")}Z`;
}
