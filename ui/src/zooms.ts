// The parts of a head's map that the report holds beside the whole, and the choice among them.

import { areaName } from "./area";
import { el, select } from "./dom";
import type { Lens, Zoom } from "./lens";
import { Pyramid, Top } from "./pyramid";
import type { Store } from "./store";

const ALL = "all";

export interface Parts {
  element: HTMLElement;
  /** What is chosen; null where the report holds no map of the head. */
  pyramid(): Pyramid | null;
  /** Its name; empty for the whole map. */
  name(): string;
}

/** `whole` gives the whole map of the head that is chosen, and `change` hears of another choice. */
export function zooms(lens: Lens, store: Store, whole: () => Pyramid | null, change: () => void): Parts {
  const place = el("span", { class: "parts" });
  let [chosen, shown, pyramid]: [string, Zoom | null, Pyramid | null] = [ALL, null, null];
  /** The part of this head that has the chosen name: a step from head to head stays with it. */
  const found = (): Zoom | null => {
    const parts = lens.heads[store.get("head")].zooms;
    return parts.find(part => areaName(part) === chosen) ?? (whole() ? null : (parts[0] ?? null));
  };
  const fill = (): void => {
    const names = [...(whole() ? [ALL] : []), ...lens.heads[store.get("head")].zooms.map(areaName)];
    const options = names.map(value => ({ value, text: value === ALL ? "All" : value }));
    const current = found();
    const choice = select("Part", options, current ? areaName(current) : ALL, value => ((chosen = value), change()));
    place.replaceChildren(...(names.length > 1 ? [choice] : []));
  };
  store.watch(["head"], fill);
  return {
    element: place,
    pyramid: () => {
      const part = found();
      if (part && part !== shown) [shown, pyramid] = [part, decoded(lens, store, part, whole())];
      return part ? pyramid : whole();
    },
    name: () => {
      const part = found();
      return part ? areaName(part) : "";
    },
  };
}

function decoded(lens: Lens, store: Store, part: Zoom, whole: Pyramid | null): Pyramid {
  const tokens = lens.texts[0].tokens.length;
  return Pyramid.part(part, whole ? whole.top : Top.of(lens.heads[store.get("head")], tokens), tokens);
}
