// A page of dist/ with given data in it, opened in Chromium.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Debian's Chromium, or the one that CHROMIUM names. */
export function launch(): Promise<Browser> {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) throw new Error(`no browser at ${executablePath}: install chromium, or name one in CHROMIUM`);
  return chromium.launch({ executablePath, headless: true, args: FLAGS });
}

const PLACE = '<script id="regard-data" type="application/json">null</script>';

let folder: string | null = null;
let files = 0;

/** A folder that goes when the process does. */
function temporary(): string {
  const made = mkdtempSync(join(tmpdir(), "regard-ui-"));
  process.on("exit", () => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** The report with data in the place of `null`, as `regard inspect` writes it. */
export async function report(data: string): Promise<string> {
  const page = await readFile("dist/report.html", "utf8");
  if (page.split(PLACE).length !== 2) throw new Error("dist/report.html has not exactly one place for data");
  const file = join((folder ??= temporary()), `report-${++files}.html`);
  await writeFile(
    file,
    page.replace(PLACE, () => PLACE.replace("null", () => data.replaceAll("<", "\\u003c"))),
  );
  return pathToFileURL(resolve(file)).href;
}

export interface Opened {
  page: Page;
  /** What the console and the page complained about, and requests that left the file. */
  problems: string[];
}

/** Opens a page; requests to other addresses than `home` are problems. */
export async function open(browser: Browser, url: string, options: BrowserContextOptions = {}, home = "file:"): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: "light", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const problems: string[] = [];
  page.on("console", message => ["error", "warning"].includes(message.type()) && problems.push(message.text()));
  page.on("pageerror", error => problems.push(String(error)));
  page.on(
    "request",
    request => request.url().startsWith(home) || request.url().startsWith("data:") || problems.push(`asked for ${request.url()}`),
  );
  await page.goto(url);
  return { page, problems };
}
