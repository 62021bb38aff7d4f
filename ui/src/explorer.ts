// What the heads read of a prompt and its answer, to be walked through; and the same text read again without some of them.

import { dashboard } from "./dashboard";
import { el, section } from "./dom";
import { headName } from "./facts";
import { everyHead } from "./every";
import { gallery } from "./gallery";
import { chosenPyramid, head, looks, picker } from "./head";
import { read, type Lens } from "./lens";
import { mean, minus, number } from "./scale";
import { Store, type State } from "./store";
import { post } from "./stream";
import { switches } from "./switches";
import { tokenView } from "./tokens";

export class Explorer {
  private readonly state = el("p", { class: "loss", role: "status" });
  private readonly problem = el("p", { class: "problem", role: "alert" });
  private readonly labels = el("ul", { class: "labels", "aria-label": "What this reading is" });
  private readonly place = el("div", {});
  private readonly rest = el("div", {});
  readonly element = el("div", { class: "explorer", hidden: true });
  private store: Store;
  /** The reading with all heads. */
  private whole: Lens | null = null;
  private control: AbortController | null = null;

  /** `name` goes before the ids of its parts. */
  constructor(private readonly name: string) {
    const chosen: State = { head: 0, measure: "entropy", log: false, hideSinks: false, token: 0, dark: false };
    this.store = new Store(chosen, `${name}-`);
  }

  clear(): void {
    this.control?.abort();
    this.element.hidden = true;
    this.element.replaceChildren();
    this.whole = null;
  }

  dark(dark: boolean): void {
    this.store.set({ dark });
  }

  /** Shows the reading of a new text. */
  show(report: unknown): void {
    this.clear();
    const lens = readings(report);
    this.whole = lens;
    this.store.set({ token: lens.texts[0].tokens.length - 1, head: Math.min(this.store.get("head"), lens.heads.length - 1) });
    this.problem.textContent = "";
    this.element.replaceChildren(
      section(
        `${this.name}-reading`,
        "What the heads read",
        this.state,
        this.problem,
        switches(lens, without => void this.again(without)),
        this.place,
      ),
      this.rest,
      this.labels,
    );
    this.element.hidden = false;
    this.fill(lens, []);
  }

  /** All that depends on the reading. */
  private fill(lens: Lens, without: number[]): void {
    // A new one, so that what showed the reading before is forgotten with it.
    const store = (this.store = new Store(this.store.all, `${this.name}-`));
    this.place.replaceChildren(
      picker(lens, store),
      el("div", { class: "controls" }, ...looks(lens, store)),
      tokenView(lens, store, chosenPyramid(lens, store)),
      everyHead(lens, store),
    );
    this.rest.replaceChildren(dashboard(lens, store), gallery(lens, store), head(lens, store, false));
    this.labels.replaceChildren(...lens.run.labels.map(label => el("li", {}, label)));
    this.state.textContent = this.losses(lens, without);
  }

  /** Reads the same tokens again, without some heads; what was asked before is given up. */
  private async again(without: number[]): Promise<void> {
    const whole = this.whole;
    if (!whole) return;
    this.control?.abort();
    this.problem.textContent = "";
    if (without.length === 0) return this.fill(whole, []);
    const control = (this.control = new AbortController());
    this.state.textContent = `Reading again without ${without.map(index => headName(whole.heads[index])).join("; ")} …`;
    try {
      const heads = without.map(index => [whole.heads[index].layer, whole.heads[index].head]);
      const body = { prompt: whole.texts[0].ids, max_tokens: 0, attention: { without: heads } };
      const answer = (await (await post("/v1/completions", body, control.signal)).json()) as { attention?: unknown };
      const lens = readings(answer.attention);
      if (!control.signal.aborted) this.fill(lens, without);
    } catch (error) {
      if (control.signal.aborted) return;
      [this.problem.textContent, this.state.textContent] = [(error as Error).message, "What is shown is the reading before."];
    }
  }

  private losses(lens: Lens, without: number[]): string {
    const [loss, before] = [lens, this.whole].map(of => mean(of?.texts[0].loss ?? []));
    if (loss === null || before === null) return "The loss was not measured.";
    if (without.length === 0) return `With all heads the loss is ${number(loss)} nats a token, over prompt and answer.`;
    const change = loss - before;
    const size = number(Math.abs(change));
    const compared = size === "0" ? "as with all heads" : `${size} ${change > 0 ? "more" : "less"} than with all heads (${number(before)})`;
    const names = without.map(index => headName(lens.heads[index])).join("; ");
    return minus(`Without ${names}: the loss is ${number(loss)} nats a token, ${compared}.`);
  }
}

/** A reading from the server, checked. */
function readings(report: unknown): Lens {
  try {
    return read(report);
  } catch (error) {
    throw new Error(`What the heads read cannot be shown: ${(error as Error).message}`);
  }
}
