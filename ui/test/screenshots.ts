// The pictures of docs/lens: `npm run screenshots`, or `npm run screenshots -- FILE` for those of a report that `regard inspect` wrote.

import { mkdir } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { launch, open, report } from "./browser";
import { small } from "./fixture";

const OUT = process.env.OUT ?? "../docs/lens";
await mkdir(OUT, { recursive: true });
const browser = await launch();
const [file] = process.argv.slice(2);
const url = file ? pathToFileURL(resolve(process.env.INIT_CWD ?? ".", file)).href : await report(JSON.stringify(small().lens));

for (const [name, colorScheme, width, height, part] of [
  ["laptop-light", "light", 1280, 860, "#dashboard"],
  ["laptop-dark", "dark", 1280, 860, "#head"],
  ["phone", "light", 390, 844, ".map-view"],
] as const) {
  const { page } = await open(browser, file ? url : url + "#L4H0", {
    colorScheme,
    viewport: { width, height },
    hasTouch: name === "phone",
    reducedMotion: "reduce",
  });
  if (process.env.FULL) await page.screenshot({ path: `${OUT}/${name}-full.png`, fullPage: true });
  await page.locator(part).evaluate(element => element.scrollIntoView());
  await page.waitForTimeout(300);
  await page.screenshot({ path: `${OUT}/${name}.png` });
}
await browser.close();
