// What the tests of the page share: one browser, and ways to read what it shows.

import type { Page } from "playwright-core";
import { launch, open as openIn, report, type Opened } from "../browser";

let browser: ReturnType<typeof launch> | null = null;
let before: Opened | null = null;

/** Opens the report of some data; the one before is closed. */
export async function open(data: unknown, hash = "", options: Parameters<typeof openIn>[2] = {}): Promise<Opened> {
  browser ??= launch();
  const text = typeof data === "string" ? data : JSON.stringify(data);
  await before?.page.context().close();
  return (before = await openIn(await browser, (await report(text)) + hash, { reducedMotion: "reduce", ...options }));
}

export async function close(): Promise<void> {
  await (await browser)?.close();
}

/** How many times the heat map was drawn. */
export const drawn = (page: Page): Promise<number> =>
  page.locator("#head canvas.map").evaluate(canvas => Number((canvas as HTMLCanvasElement).dataset.drawn ?? 0));

/** Does something, and waits until the heat map was drawn after it. */
export async function redrawn(page: Page, act: () => Promise<unknown>): Promise<void> {
  const before = await drawn(page);
  await act();
  await page.waitForFunction(n => Number(document.querySelector<HTMLElement>("#head canvas.map")!.dataset.drawn) > n, before);
  await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))));
}

export const LEFT = 76;
export const TOP = 56;

/** The colours of the heat map at places of its square, in CSS pixels from its upper left corner. */
export function pixels(page: Page, places: [number, number][], map = "#head canvas.map"): Promise<[number, number, number, number][]> {
  return page.locator(map).evaluate(
    (canvas, [all, left, top]) => {
      const context = (canvas as HTMLCanvasElement).getContext("2d")!;
      const { data, width } = context.getImageData(0, 0, (canvas as HTMLCanvasElement).width, (canvas as HTMLCanvasElement).height);
      return all.map(([x, y]) => [...data.subarray(4 * ((top + y) * width + left + x)).subarray(0, 4)] as [number, number, number, number]);
    },
    [places, LEFT, TOP] as const,
  );
}

/** Side of the heat map's square, in CSS pixels. */
export const side = (page: Page, map = "#head canvas.map"): Promise<number> =>
  page.locator(map).evaluate((canvas, left) => Number.parseFloat((canvas as HTMLElement).style.width) - left - 1, LEFT);

export const readout = (page: Page): Promise<string> => page.locator(".map-view .readout").innerText();

/** The place of the heat map's square on the screen. */
export async function corner(page: Page): Promise<{ x: number; y: number }> {
  await page.locator("#head canvas.map").evaluate(canvas => canvas.scrollIntoView({ block: "start" }));
  const box = (await page.locator("#head canvas.map").boundingBox())!;
  return { x: box.x + LEFT, y: box.y + TOP };
}
