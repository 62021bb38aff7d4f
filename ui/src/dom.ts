// Elements, made in one expression. Text only ever becomes text: no string is read as HTML.

type Child = Node | string | null | false | undefined;
type Value = string | number | boolean | null | undefined | ((event: never) => void);

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: `on…` are listeners, `true` and `false` set and leave out, all others are attributes. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, Value> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Record<string, Value> = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag) as SVGElementTagNameMap[K], attributes, children);
}

function fill<E extends Element>(element: E, attributes: Record<string, Value>, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value as EventListener);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child): child is Node | string => child !== null && child !== undefined && child !== false));
  return element;
}

/** A section of the page with its heading. */
export function section(id: string, title: string, ...children: Child[]): HTMLElement {
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), ...children);
}

export const prose = (...children: Child[]): HTMLElement => el("p", { class: "prose" }, ...children);

/** What is said in place of a figure that the report has no data for. */
export const missing = (text: string): HTMLElement => el("p", { class: "missing" }, text);

/** A table of words and numbers. */
export function table(attributes: Record<string, Value>, columns: readonly string[], rows: readonly (readonly string[])[]): HTMLElement {
  return el(
    "table",
    { class: "values", ...attributes },
    el("thead", {}, el("tr", {}, ...columns.map(name => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map(row => el("tr", {}, ...row.map(text => el("td", {}, text))))),
  );
}

export interface Option {
  value: string;
  text: string;
  group?: string;
}

let choices = 0;

/** A labelled choice. */
export function select(label: string, options: Option[], value: string, change: (value: string) => void): HTMLElement {
  const id = `choice-${++choices}`;
  const choice = el("select", { id, onchange: () => change(choice.value) });
  const groups = new Map<string, HTMLElement>();
  for (const { value, text, group } of options) {
    if (group && !groups.has(group)) groups.set(group, choice.appendChild(el("optgroup", { label: group })));
    ((group && groups.get(group)) || choice).append(el("option", { value }, text));
  }
  choice.value = value;
  return el("span", { class: "choice" }, el("label", { for: id }, label), choice);
}

/** A labelled switch. */
export function toggle(label: string, on: boolean, change: (on: boolean) => void): HTMLLabelElement {
  const box = el("input", { type: "checkbox", checked: on, onchange: () => change(box.checked) });
  return el("label", { class: "toggle" }, box, el("span", {}, label));
}

/** Calls `draw` with the width of an element, now and whenever that changes. */
export function atWidth(element: HTMLElement, draw: (width: number) => void): void {
  let before = 0;
  new ResizeObserver(() => {
    const width = Math.floor(element.clientWidth);
    if (width > 0 && width !== before) draw((before = width));
  }).observe(element);
}

/** A token as it is shown where its spaces matter. */
export function shown(token: string): string {
  const text = token.replace(/\r?\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "·");
  return text === "" ? "∅" : text.length > 24 ? text.slice(0, 23) + "…" : text;
}
