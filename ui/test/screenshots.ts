// The pictures of docs/lens: `npm run screenshots`, or `npm run screenshots -- FILE` for those of a report that `regard inspect` wrote, or with
// the address of a server that tells attention for that of its page.

import { mkdir } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser } from "playwright-core";
import { launch, open, report } from "./browser";
import { small } from "./fixture";

const OUT = process.env.OUT ?? "../docs/lens";
await mkdir(OUT, { recursive: true });
const browser = await launch();
const [file] = process.argv.slice(2);
await (file?.startsWith("http") ? server(browser, file) : reports(browser, file));
await browser.close();

/** A text of the server's model, what a head read at one of its tokens, and the loss without another. */
async function server(browser: Browser, url: string): Promise<void> {
  const { page } = await open(browser, url, { viewport: { width: 1280, height: 1000 }, reducedMotion: "reduce" }, url);
  await page.getByLabel(/^what each head reads/).waitFor();
  await page.getByLabel("Tokens", { exact: true }).fill("60");
  await page.getByLabel("Temperature").fill("0");
  await page.locator(".pane textarea").first().fill("Once upon a time there was a king who had three daughters.");
  await page.locator(".pane button[type=submit]").first().click();
  const explorer = page.locator(".explorer").first();
  await explorer.locator("summary").click();
  await explorer.locator(".switches td").nth(0).click();
  await explorer.locator(".loss", { hasText: "Without" }).waitFor();
  await explorer.getByLabel("Layer", { exact: true }).first().selectOption("2");
  await explorer.getByLabel("Head", { exact: true }).first().selectOption("5");
  await explorer.locator(".tokens > span").nth(40).click();
  await explorer.evaluate(element => element.scrollIntoView());
  await page.waitForTimeout(300);
  await page.screenshot({ path: `${OUT}/live.png` });
}

async function reports(browser: Browser, file: string | undefined): Promise<void> {
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
}
