// What a report holds only when it was asked for: pruning, what comes through all layers, and parts of maps.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Page } from "playwright-core";
import { sequential } from "../../src/colour";
import { number } from "../../src/scale";
import { asked, small, TOKENS } from "../fixture";
import { lightness } from "../oklab";
import { close, LEFT, open, pixels, readout, redrawn, side, TOP } from "./common";

const fixture = small();
const lens = asked(fixture);
after(close);

const titles = (page: Page): Promise<string[]> => page.locator("h2").allInnerTexts();
/** The places of a chart's line, in pixels. */
const line = async (page: Page, of: string): Promise<[number, number][]> => {
  const d = await page.locator(`${of} path.line`).first().getAttribute("d");
  return [...d!.matchAll(/[ML]([\d.]+) ([\d.]+)/g)].map(([, x, y]) => [Number(x), Number(y)]);
};
const near = (a: number, b: number, what: string): void => assert.ok(Math.abs(a - b) <= 0.11, `${what}: ${a} is not ${b}`);

test("pruning: the loss against heads taken away, to eyes, keys and as a table", async () => {
  const { page, problems } = await open(lens);
  assert.deepEqual((await titles(page)).slice(2, 4), ["Heads at a glance", "Pruning"]);
  const text = await page.locator("#pruning").innerText();
  assert.match(text, /in the order of what the loss changes when each alone gives zeros, least first\./);
  const places = await line(page, "#pruning");
  const [[left, top], [right, bottom]] = [places[0], places[5]];
  const [first, last] = [lens.pruning[0], lens.pruning[5]].map(({ loss }) => loss as number);
  lens.pruning.forEach(({ heads, loss }, at) => {
    near(places[at][0], left + ((right - left) * heads) / 48, `${heads} heads lie so far right`);
    near(places[at][1], top + ((bottom - top) * ((loss as number) - first)) / (last - first), `${heads} heads lie so high`);
  });
  const plot = page.locator("#pruning .plot");
  assert.match((await plot.getAttribute("aria-label"))!, /by heads taken away\. Left and right keys/);
  const out = page.locator("#pruning .readout");
  await plot.focus();
  for (const [key, index] of Object.entries({ Home: 0, ArrowRight: 1, End: 5, ArrowLeft: 4 })) {
    await page.keyboard.press(key);
    const { heads, loss } = lens.pruning[index];
    assert.equal(await out.innerText(), `${heads ? `Without ${heads} heads` : "With all heads"}: loss ${number(loss)}`);
  }
  const box = (await plot.boundingBox())!;
  await page.mouse.move(box.x + places[3][0] + 20, box.y + 50);
  assert.match(await out.innerText(), /^Without 16 heads:/, "16 is nearer than 40");
  assert.equal(await page.locator("#pruning table").isVisible(), false);
  await page.locator("#pruning summary").focus();
  await page.keyboard.press("Enter");
  const cells = await page.locator("#pruning tbody td").allInnerTexts();
  assert.deepEqual(
    cells,
    lens.pruning.flatMap(({ heads, loss }) => [String(heads), number(loss)]),
  );
  assert.deepEqual(problems, []);
});

test("through all layers: rollout and flow of each token, the ten largest named, and the caveat", async () => {
  const { page, problems } = await open(lens);
  const { rollout, flow } = lens.through!;
  const text = await page.locator("#through").innerText();
  assert.match(text, /How much comes to token 68 “\.” from each token/);
  assert.match(text, /An approximation: it knows nothing of values, projections and feed-forward layers \(Abnar & Zuidema 2020\)\./);
  for (const [at, values] of [rollout, flow].entries()) {
    const places = await line(page, `#through figure:nth-of-type(${at + 1})`);
    assert.equal(places.length, TOKENS.length);
    const heights = places.map(([, y]) => y);
    assert.equal(heights.indexOf(Math.min(...heights)), values.indexOf(Math.max(...(values as number[]))));
  }
  for (const [at, told] of [
    `rollout ${number(rollout[1])}, flow ${number(flow[1])}`,
    `flow ${number(flow[1])}, rollout ${number(rollout[1])}`,
  ].entries()) {
    await page.locator("#through .plot").nth(at).focus();
    for (const key of ["Home", "ArrowRight"]) await page.keyboard.press(key);
    assert.equal(await page.locator("#through .readout").nth(at).innerText(), `Token 1 “·upon”: ${told}`);
  }
  const cells = (): Promise<string[]> => page.locator("#through tbody tr").allInnerTexts();
  const expected = (by: (number | null)[]): string[] => {
    const order = by.map((_, at) => at).sort((a, b) => (by[b] as number) - (by[a] as number));
    return order.slice(0, 10).map(at => [TOKENS[at].replace(" ", "·"), at, number(rollout[at]), number(flow[at])].join("\t"));
  };
  assert.deepEqual(await cells(), expected(rollout));
  await page.getByLabel("Largest by").focus();
  await page.keyboard.press("ArrowDown");
  assert.deepEqual(await cells(), expected(flow));
  assert.deepEqual(problems, []);
});

test("without them nothing is shown of them", async () => {
  const { pruning: _, through: __, ...bare } = lens;
  const heads = bare.heads.map(({ zooms: _, ...head }) => head);
  const { page, problems } = await open({ ...bare, heads });
  const all = (await titles(page)).join();
  assert.ok(all.includes("Along the text") && !/Pruning|Through/.test(all), all);
  assert.equal(await page.getByLabel("Part", { exact: true }).isVisible(), false);
  assert.deepEqual(problems, []);
});

const many = small(
  Array.from({ length: 345 }, (_, at) => TOKENS[at % TOKENS.length]),
  1,
);
const [SQUARE, WIDE] = [
  { rows: [200, 240], keys: [180, 220] },
  { rows: [300, 330], keys: [0, 60] },
] as const;

test("a part is chosen with keys, and every cell of it is as dark as its weight", async () => {
  const data = asked(many, [SQUARE, WIDE]);
  for (const [index, { rows, keys }] of [SQUARE, WIDE].entries()) {
    const { page, problems } = await open(data, "#L0H0");
    const [map, part] = [page.locator("#head canvas.map"), page.getByLabel("Part", { exact: true })];
    assert.deepEqual(await part.locator("option").allInnerTexts(), [
      "All",
      "rows 200 to 239, keys 180 to 219",
      "rows 300 to 329, keys 0 to 59",
    ]);
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#head canvas.map")!.dataset.block === "2");
    await part.focus();
    for (let i = 0; i <= index; i++) await redrawn(page, () => page.keyboard.press("ArrowDown"));
    const [down, across] = [rows[1] - rows[0], keys[1] - keys[0]];
    const scale = (await side(page)) / across;
    assert.equal(await map.evaluate(canvas => canvas.style.height), `${Math.round(scale * down) + TOP + 1}px`);
    assert.match((await map.getAttribute("aria-label"))!, new RegExp(`: rows ${rows[0]} to ${rows[1] - 1}, keys ${keys[0]} to`));
    const cells = Array.from({ length: down * across }, (_, at) => [rows[0] + Math.floor(at / across), keys[0] + (at % across)]);
    // As a byte holds it: where all are small, its steps are seen.
    const weight = ([q, k]: number[]): number => (Math.round(255 * Math.sqrt(many.weights[0][q * 345 + k])) / 255) ** 2;
    const middle = ([q, k]: number[]): [number, number] => [
      Math.floor((k - keys[0] + 0.5) * scale),
      Math.floor((q - rows[0] + 0.5) * scale),
    ];
    const [paper, full] = [lightness(sequential(0, false)), lightness(sequential(1, false))];
    const most = Math.max(...cells.map(weight));
    (await pixels(page, cells.map(middle))).map(lightness).forEach((shade, at) => {
      const expected = paper + ((full - paper) * weight(cells[at])) / most;
      assert.ok(Math.abs(shade - expected) < 0.01, `row ${cells[at][0]}, key ${cells[at][1]}: ${shade}, not ${expected}`);
    });
    assert.match(await page.locator(".map-view .legend").innerText(), /a cell is a token$/);
    assert.deepEqual(problems, []);
  }
});

test("a part stays when another head is chosen, until all is", async () => {
  const { page, problems } = await open(asked(many, [SQUARE, WIDE]), "#L0H0");
  const [map, part] = [page.locator("#head canvas.map"), page.getByLabel("Part", { exact: true })];
  await redrawn(page, () => part.selectOption({ index: 2 }));
  await redrawn(page, () => page.getByRole("button", { name: "Next head" }).click());
  assert.equal(await map.getAttribute("data-block"), "1");
  assert.equal(await part.inputValue(), "rows 300 to 329, keys 0 to 59");
  await part.focus();
  await redrawn(page, () => page.keyboard.press("Home"));
  assert.equal(await map.getAttribute("data-block"), "2");
  assert.deepEqual(problems, []);
});

test("keys and pointer read a part's cells by the text's positions, and stay inside", async () => {
  const { page, problems } = await open(asked(many, [SQUARE]), "#L0H0");
  const map = page.locator("#head canvas.map");
  await redrawn(page, async () => page.getByLabel("Part", { exact: true }).selectOption({ index: 1 }));
  const told = (q: number, k: number): RegExp => new RegExp(`^Token ${q} “.*” reads token ${k} “.*”: `);
  await map.focus();
  for (const [key, q, k] of [
    ["ArrowDown", 200, 180],
    ["ArrowUp", 200, 180],
    ["ArrowRight", 200, 181],
    ["Shift+ArrowDown", 210, 181],
  ] as const) {
    await page.keyboard.press(key);
    assert.match(await readout(page), told(q, k), key);
  }
  for (let i = 0; i < 5; i++) for (const way of ["Down", "Right"]) await page.keyboard.press(`Shift+Arrow${way}`);
  assert.match(await readout(page), told(239, 219));
  await page.keyboard.press("Enter");
  assert.match(await page.locator(".reading p").first().innerText(), /^Token 239 /);
  await map.evaluate(canvas => canvas.scrollIntoView({ block: "start" }));
  const [box, scale] = [(await map.boundingBox())!, (await side(page)) / 40];
  await redrawn(page, () => page.mouse.move(box.x + LEFT + 29.5 * scale, box.y + TOP + 10.5 * scale));
  const weight = many.weights[0][210 * 345 + 209];
  assert.match(await readout(page), told(210, 209));
  assert.ok((await readout(page)).endsWith(`: ${weight.toFixed(3)}`), "of the largest weights, exactly");
  await redrawn(page, () => page.getByLabel("Part", { exact: true }).selectOption("all"));
  assert.match(await readout(page), /^Rows read/, "the cell that was pointed at is gone with its part");
  assert.deepEqual(problems, []);
});

test("a part in blocks, of a head without a whole map, and all of it on a phone", async () => {
  const blocks = asked(many, [SQUARE, WIDE], 3);
  const heads = blocks.heads.map((head, index) => ({ ...head, top: null, maps: index ? head.maps : [] }));
  const { page, problems } = await open({ ...blocks, heads }, "#L0H0", { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  const part = page.getByLabel("Part", { exact: true });
  assert.deepEqual(await part.locator("option").allInnerTexts(), ["rows 200 to 239, keys 180 to 219", "rows 300 to 329, keys 0 to 59"]);
  await page.waitForFunction(() => document.querySelector<HTMLElement>("#head canvas.map")!.dataset.drawn);
  await page.locator("#head canvas.map").focus();
  for (const key of ["ArrowDown", "ArrowDown"]) await page.keyboard.press(key);
  for (let i = 0; i < 5; i++) await page.keyboard.press("Shift+ArrowRight");
  assert.match(await readout(page), /^Tokens 203 to 205 \(“.*”\) read token[s ]+219/);
  assert.match(await page.locator(".map-view .legend").innerText(), /a cell is 3 × 3 tokens$/);
  await page.locator("#pruning summary").click();
  for (const width of [390, 320]) {
    await page.setViewportSize({ width, height: 844 });
    await page.waitForFunction(width => document.querySelector("#pruning svg")!.getBoundingClientRect().width < width, width);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
  }
  assert.deepEqual(problems, []);
});
