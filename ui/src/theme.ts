// Light and dark: as the system says, until the reader says otherwise.

import { el } from "./dom";

const KEY = "regard-theme";
const CHOICES = ["system", "light", "dark"] as const;
type Choice = (typeof CHOICES)[number];

/** A switch of three; `change` hears whether it is dark, now and whenever that changes. */
export function themeSwitch(change: (dark: boolean) => void): HTMLElement {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let choice = stored();
  const apply = (): void => {
    const dark = choice === "dark" || (choice === "system" && system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    change(dark);
  };
  system.addEventListener("change", apply);
  apply();
  const radio = (value: Choice): HTMLElement =>
    el(
      "label",
      {},
      el("input", { type: "radio", name: "theme", value, checked: value === choice, onchange: () => (store((choice = value)), apply()) }),
      el("span", {}, value[0].toUpperCase() + value.slice(1)),
    );
  return el("fieldset", { class: "theme" }, el("legend", { class: "unseen" }, "Theme"), ...CHOICES.map(radio));
}

// Pages opened from a file may have no storage: then the choice lasts as long as the page.
function stored(): Choice {
  try {
    return CHOICES.find(choice => choice === localStorage.getItem(KEY)) ?? "system";
  } catch {
    return "system";
  }
}

function store(choice: Choice): void {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // no storage
  }
}
