// The report of `regard inspect`: reads the data that the page holds, checks it, and shows it from top to bottom.

import { alike } from "./alike";
import { dashboard, toHead } from "./dashboard";
import { el, prose, section } from "./dom";
import { facts, type Fact } from "./facts";
import { gallery } from "./gallery";
import { head } from "./head";
import { read, type Lens } from "./lens";
import { positions } from "./positions";
import { pruning } from "./pruning";
import { run } from "./run";
import { Store } from "./store";
import { themeSwitch } from "./theme";
import { through } from "./through";

/** A token far enough in to have something to read. */
const MIDDLE = 40;

const main = document.querySelector("main") as HTMLElement;

try {
  show(read(JSON.parse(document.getElementById("regard-data")?.textContent ?? "null")));
} catch (error) {
  failed(error instanceof Error ? error.message : String(error));
}

function show(lens: Lens): void {
  const store = new Store({
    head: start(lens),
    measure: "entropy",
    log: false,
    hideSinks: false,
    token: Math.min(lens.texts[0].tokens.length - 1, MIDDLE),
    dark: false,
  });
  const name = lens.model.name ?? "a model";
  document.title = `What ${name} attends to`;
  const theme = themeSwitch(dark => store.set({ dark }));
  const parts = [
    run(lens),
    key(lens, store),
    dashboard(lens, store),
    pruning(lens),
    positions(lens, store),
    through(lens),
    gallery(lens, store),
    alike(lens, store),
    head(lens, store),
  ].filter(part => part !== null);
  const links = parts.map(part => el("a", { href: `#${part.id}` }, part.querySelector("h2")?.textContent ?? ""));
  main.replaceChildren(
    el("header", {}, el("h1", {}, document.title), theme, el("nav", { "aria-label": "Parts of the report" }, ...links)),
    ...parts,
  );
  store.watch(["head"], () => keep(lens, store.get("head")));
}

/** The head that the address names, as #L2H5, or else the one that is most of a pattern. */
function start(lens: Lens): number {
  const named = /^#L(\d+)H(\d+)$/.exec(location.hash);
  const index = named ? Number(named[1]) * lens.model.heads + Number(named[2]) : -1;
  if (named && Number(named[2]) < lens.model.heads && lens.heads[index]) return index;
  const score = (at: number): number => {
    const { previous, duplicate, induction } = lens.heads[at].scores;
    return Math.max(previous ?? 0, duplicate ?? 0, induction ?? 0);
  };
  return lens.heads.reduce((best, _, at) => (score(at) > score(best) ? at : best), 0);
}

/** Keeps the head in the address, so that a link shows the same. */
function keep(lens: Lens, index: number): void {
  const { layer, head } = lens.heads[index];
  try {
    history.replaceState(null, "", `#L${layer}H${head}`);
  } catch {
    // A frame without an address of its own: the choice lasts as long as the page.
  }
}

function key(lens: Lens, store: Store): HTMLElement {
  const entry = (fact: Fact): HTMLElement => {
    const heads = fact.heads.map(one => toHead(lens, store, lens.heads.indexOf(one)));
    return el(
      "div",
      { class: "fact" },
      el("h3", {}, fact.title),
      el("p", {}, fact.text),
      heads.length ? el("p", { class: "to-heads" }, "See ", ...heads) : null,
    );
  };
  return section(
    "facts",
    "Key facts",
    prose("Layers and heads are counted from 0; 2·5 is layer 2, head 5."),
    el("div", { class: "facts" }, ...facts(lens).map(entry)),
  );
}

/** The error, and nothing else. */
function failed(message: string): void {
  document.title = "regard: this report cannot be shown";
  const advice =
    "The file may be cut short, or be written by another version of regard. Make it again with `regard inspect --out report.html`.";
  main.replaceChildren(
    el("div", { role: "alert", class: "error" }, el("h1", {}, "This report cannot be shown"), el("p", {}, message), el("p", {}, advice)),
  );
}
