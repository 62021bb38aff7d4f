// The heat map: its pixels are the data's, and it moves as it is told.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { sequential } from "../../src/colour";
import { TOKENS, small } from "../fixture";
import { lightness } from "../oklab";
import { close, corner, drawn, open, pixels, readout, redrawn, side } from "./common";

const { lens, weights } = small();
const tokens = lens.texts[0].tokens.length;
after(close);

/** The middle of each cell of the first `count` rows and columns, at so many pixels a token. */
const middles = (scale: number, count: number): [number, number][] =>
  Array.from({ length: count * count }, (_, at) => [
    Math.floor(((at % count) + 0.5) * scale),
    Math.floor((Math.floor(at / count) + 0.5) * scale),
  ]);

test("every cell is as dark as its weight, from nothing to the most", async () => {
  const { page, problems } = await open(lens, "#L4H0");
  await page.waitForFunction(() => document.querySelector<HTMLElement>("#head canvas.map")!.dataset.drawn);
  const shades = (await pixels(page, middles((await side(page)) / tokens, tokens))).map(lightness);
  const [paper, full] = [lightness(sequential(0, false)), lightness(sequential(1, false))];
  const most = Math.max(...weights[32]);
  weights[32].forEach((weight, at) => {
    const expected = paper + (full - paper) * (weight / most);
    // A byte holds the root of the weight in steps of 1/255, so the weight in steps of 2√w/255; colours are bytes too.
    assert.ok(Math.abs(shades[at] - expected) < 0.02, `row ${Math.floor(at / tokens)}, key ${at % tokens}: ${shades[at]}, not ${expected}`);
  });
  assert.deepEqual(problems, []);
});

test("another head has other pixels", async () => {
  const { page } = await open(lens, "#L0H0");
  await redrawn(page, () => page.getByRole("button", { name: "Next head" }).click());
  const shades = (await pixels(page, middles((await side(page)) / tokens, tokens))).map(lightness);
  const darkest = shades.indexOf(Math.min(...shades));
  assert.ok(weights[1][darkest] > 0.95 * Math.max(...weights[1]));
});

test("a logarithmic scale shows what a linear one does not", async () => {
  const { page } = await open(lens, "#L0H0");
  await redrawn(page, () => page.getByLabel("log scale").check());
  const [[red, green, blue]] = await pixels(page, [middles((await side(page)) / tokens, tokens)[60 * tokens + 30]]);
  const weight = weights[0][60 * tokens + 30];
  const [paper, full] = [lightness(sequential(0, false)), lightness(sequential(1, false))];
  const expected = paper + (full - paper) * (1 + Math.log10(weight) / 5);
  assert.ok(weight < 0.01 && Math.abs(lightness([red, green, blue]) - expected) < 0.03);
});

test("hidden sinks give their colours to the rest", async () => {
  const { page } = await open(lens, "#L1H0");
  const places = middles((await side(page)) / tokens, tokens);
  const dark = async (at: number): Promise<number> => lightness((await pixels(page, [places[at]]))[0]);
  const rest = weights[8].map((weight, at) => (at % tokens < 4 ? 0 : weight));
  const at = rest.indexOf(Math.max(...rest));
  const [before, sink] = [await dark(at), await dark(60 * tokens)];
  assert.ok(sink < 0.5 && before > 0.6, `${sink} ${before}`);
  await redrawn(page, () => page.getByLabel(/hide the first 4 tokens/).check());
  assert.ok(Math.abs((await dark(at)) - lightness(sequential(1, false))) < 0.03);
  const [, , , alpha] = (await pixels(page, [places[60 * tokens]]))[0];
  assert.ok(alpha < 100);
});

test("it zooms by wheel where the pointer is, and by buttons and keys", async () => {
  const { page, problems } = await open(lens, "#L4H0");
  const { x, y } = await corner(page);
  await page.mouse.move(x + 320.5, y + 400.5);
  const cell = (await readout(page)).split(":")[0];
  assert.match(cell, /^Token \d+ “.*” reads token \d+ “.*”$/);
  const before = await drawn(page);
  await page.mouse.wheel(0, -300);
  await page.waitForTimeout(60);
  assert.equal(await drawn(page), before, "without the focus the wheel scrolls the page");
  await page.locator("#head canvas.map").focus();
  const moved = await corner(page);
  await page.mouse.move(moved.x + 320.5, moved.y + 400.5);
  for (let i = 0; i < 4; i++) await redrawn(page, () => page.mouse.wheel(0, -300));
  assert.equal((await readout(page)).split(":")[0], cell);
  await redrawn(page, () => page.mouse.move(moved.x + 380.5, moved.y + 400.5));
  const near = Number(/reads token (\d+)/.exec(await readout(page))![1]) - Number(/reads token (\d+)/.exec(cell)![1]);
  assert.ok(near >= 0 && near <= 2, `60 pixels are ${near} tokens`);
  await redrawn(page, () => page.keyboard.press("0"));
  await redrawn(page, () => page.getByRole("button", { name: "Zoom in" }).click());
  await redrawn(page, () => page.getByRole("button", { name: "Zoom out" }).click());
  await redrawn(page, () => page.getByRole("button", { name: "Show all" }).click());
  assert.deepEqual(problems, []);
});

test("dragging moves it, and a click chooses the row's token", async () => {
  const { page } = await open(lens, "#L4H0");
  for (let i = 0; i < 3; i++) await redrawn(page, () => page.getByRole("button", { name: "Zoom in" }).click());
  const { x, y } = await corner(page);
  const cell = async (): Promise<number[]> => [...(await readout(page)).matchAll(/token (\d+)/gi)].map(match => Number(match[1]));
  await page.mouse.move(x + 300, y + 300);
  const from = await cell();
  await page.mouse.down();
  await redrawn(page, () => page.mouse.move(x + 400, y + 360, { steps: 4 }));
  await page.mouse.up();
  await redrawn(page, () => page.mouse.move(x + 401, y + 361));
  assert.deepEqual(await cell(), from, "what was taken stays under the pointer");
  const most = Math.max(...weights[32]);
  const [paper, full] = [lightness(sequential(0, false)), lightness(sequential(1, false))];
  for (const [dx, dy] of [
    [401, 361],
    [120, 500],
    [40, 300],
    [500, 520],
    [250, 90],
    [330, 420],
  ] as [number, number][]) {
    await redrawn(page, () => page.mouse.move(x + dx, y + dy));
    const [row, key] = await cell();
    const expected = paper + (full - paper) * (weights[32][row * tokens + key] / most);
    const found = lightness((await pixels(page, [[dx, dy]]))[0]);
    assert.ok(Math.abs(found - expected) < 0.03, `row ${row}, key ${key}: ${found}, not ${expected}`);
  }
  await redrawn(page, () => page.mouse.move(x + 401, y + 361));
  await page.mouse.click(x + 401, y + 361);
  assert.match(await page.locator(".reading p").first().innerText(), new RegExp(`^Token ${from[0]} `));
});

test("keys alone read cells, and choose a token", async () => {
  const { page } = await open(lens, "#L4H0");
  await page.locator("#head canvas.map").focus();
  await page.keyboard.press("ArrowDown");
  for (let i = 0; i < 2; i++) await page.keyboard.press("Shift+ArrowDown");
  for (let i = 0; i < 12; i++) await page.keyboard.press("ArrowRight");
  assert.match(await readout(page), /^Token 20 “·of” reads token 12 “·crow”: /);
  const weight = weights[32][20 * tokens + 12];
  assert.ok(Math.abs(Number(/: (?:about )?([\d.]+)$/.exec(await readout(page))![1]) - weight) < 0.001 + Math.sqrt(weight) / 255);
  await page.keyboard.press("Enter");
  assert.match(await page.locator(".reading p").first().innerText(), /^Token 20 /);
});

test("two fingers zoom it", async () => {
  const { page } = await open(lens, "#L4H0", { hasTouch: true, viewport: { width: 1280, height: 860 } });
  const { x, y } = await corner(page);
  const touch = await page.context().newCDPSession(page);
  const fingers = (type: "touchStart" | "touchMove" | "touchEnd", apart: number): Promise<unknown> =>
    touch.send("Input.dispatchTouchEvent", {
      type,
      touchPoints: apart
        ? [
            { x: x + 300 - apart, y: y + 300, id: 0 },
            { x: x + 300 + apart, y: y + 300, id: 1 },
          ]
        : [],
    });
  await fingers("touchStart", 40);
  for (let apart = 50; apart <= 160; apart += 10) await fingers("touchMove", apart);
  await fingers("touchEnd", 0);
  await redrawn(page, () => page.mouse.move(x + 10, y + 300));
  const first = Number(/reads token (\d+)/.exec(await readout(page))![1]);
  await redrawn(page, () => page.mouse.move(x + 590, y + 300));
  const last = Number(/reads token (\d+)/.exec(await readout(page))![1]);
  assert.ok(last - first < 22 && last - first > 10, `from ${first} to ${last}: a quarter of ${tokens} tokens`);
});

test("a text longer than its finest map: coarse cells from afar, single weights from near", async () => {
  const many = small(
    Array.from({ length: 345 }, (_, at) => TOKENS[at % TOKENS.length]),
    1,
  );
  const { page, problems } = await open(many.lens, "#L0H0", { viewport: { width: 700, height: 860 } });
  const map = page.locator("#head canvas.map");
  assert.equal(await map.getAttribute("data-block"), "2");
  for (let i = 0; i < 5; i++) await redrawn(page, () => page.getByRole("button", { name: "Zoom in" }).click());
  const { x, y } = await corner(page);
  await redrawn(page, () => page.mouse.move(x + 320, y + 320));
  // The head reads the token before. The most mass of a pooled cell is 1, that of the first block.
  const scale = ((await side(page)) / 345) * 1.6 ** 5;
  const [, row, key] = (await readout(page)).match(/(\d+) .*?(?:reads token|read tokens) (\d+)/)!.map(Number);
  const place = 320 + (row - 1 - key) * scale;
  await redrawn(page, () => page.mouse.move(x + place, y + 320));
  const weight = many.weights[0][row * 345 + row - 1];
  assert.match(await readout(page), new RegExp(`^Token ${row} .* reads token ${row - 1} .*: ${weight.toFixed(3)};`));
  const [paper, full] = [lightness(sequential(0, false)), lightness(sequential(1, false))];
  const [pixel] = await pixels(page, [[Math.floor(place), 320]]);
  assert.ok(Math.abs(lightness(pixel) - (paper + (full - paper) * weight)) < 0.03, `${pixel} for ${weight}`);
  assert.match(
    await page.locator(".map-view .legend").innerText(),
    /a cell is 2 × 2 tokens; over them, the largest weights of single tokens/,
  );
  await redrawn(page, () => page.getByRole("button", { name: "Show all" }).click());
  await page.setViewportSize({ width: 390, height: 800 });
  await page.waitForFunction(() => document.querySelector<HTMLElement>("#head canvas.map")!.dataset.block === "4");
  assert.deepEqual(problems, []);
});
