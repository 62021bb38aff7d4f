// The page from top to bottom: it loads, shows what the data says, and takes choices.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { number, percent } from "../../src/scale";
import { sequential } from "../../src/colour";
import { ABLATIONS } from "../../src/lens";
import { similarities, small } from "../fixture";
import { lightness } from "../oklab";
import { close, open, pixels, redrawn, side } from "./common";

const { lens, weights } = small();
const tokens = lens.texts[0].tokens.length;
after(close);

test("it loads without a complaint or a request, and has all its parts", async () => {
  const { page, problems } = await open(lens);
  assert.equal(await page.title(), "What fixture attends to");
  assert.deepEqual(await page.locator("h2").allInnerTexts(), [
    "What was run",
    "Key facts",
    "Heads at a glance",
    "Along the text",
    "Every head",
    "Heads alike",
    "One head",
  ]);
  assert.match(await page.locator("#run").innerText(), /Weights are not an explanation/);
  assert.equal(await page.locator(".gallery canvas").count(), 48);
  assert.ok((await page.locator(".plot svg path.line").count()) >= 5);
  assert.deepEqual(problems, []);
});

test("the dashboard shows each head's value of the measure that is chosen", async () => {
  const { page, problems } = await open(lens);
  const cells = page.getByRole("gridcell");
  const labels = (): Promise<(string | null)[]> => cells.evaluateAll(all => all.map(cell => cell.getAttribute("aria-label")));
  const entropy = (of: Float64Array): number => -of.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0) / tokens;
  assert.deepEqual(
    await labels(),
    weights.map((each, i) => `Layer ${Math.floor(i / 8)}, head ${i % 8}: entropy ${number(entropy(each))} nats`),
  );
  await page.getByLabel("Colour by").selectOption({ label: "Self mass" });
  const self = (of: Float64Array): number => Array.from({ length: tokens }, (_, q) => of[q * tokens + q]).reduce((a, b) => a + b) / tokens;
  assert.deepEqual(
    await labels(),
    weights.map((each, i) => `Layer ${Math.floor(i / 8)}, head ${i % 8}: self mass ${percent(self(each))}`),
  );
  for (const [label, of] of [
    ["Rows on one token", (i: number) => percent((i % 8) / 8)],
    ["Rows that read alike", (i: number) => percent((i % 5) / 8)],
    ["Peak logit", (i: number) => number(12.5 + i)],
  ] as const) {
    await page.getByLabel("Colour by").selectOption({ label });
    assert.deepEqual(
      (await labels()).map(each => each!.split(": ")[1]),
      weights.map((_, i) => `${label[0].toLowerCase()}${label.slice(1)} ${of(i)}`),
    );
  }
  await page.getByLabel("Colour by").selectOption({ label: "Self mass" });
  const colours = await cells.evaluateAll(all => new Set(all.map(cell => (cell as HTMLElement).style.background)).size);
  assert.ok(colours > 20);
  await page.getByLabel("Colour by").selectOption({ label: "Retrieval" });
  assert.equal(await cells.count(), 0);
  assert.match(await page.locator("#dashboard").innerText(), /Retrieval: not measured in this run\./);
  assert.deepEqual(problems, []);
});

test("ablation by zeros, means and resampling: of each head, and of all heads of a layer", async () => {
  const { page, problems } = await open(lens, "#L4H2");
  const cells = page.getByRole("gridcell");
  const nats = (change: number): string => `${change > 0 ? "+" : ""}${number(change)} nats`;
  for (const by of ABLATIONS) {
    await page.getByLabel("Colour by").selectOption({ label: `Loss without it (${by})` });
    const rows = lens.layers.map(({ layer, ablation }) => [
      ...lens.heads
        .slice(layer * 8, layer * 8 + 8)
        .map(({ head, ablation }) => `Layer ${layer}, head ${head}: loss without it (${by}) ${nats(ablation[by] as number)}`),
      `Layer ${layer}, all heads: loss without it (${by}) ${nats(ablation[by] as number)}`,
    ]);
    assert.deepEqual(await cells.evaluateAll(all => all.map(cell => cell.getAttribute("aria-label"))), rows.flat());
    const told = await page
      .locator("#head .numbers div", { hasText: `(${by})` })
      .locator("dd")
      .innerText();
    assert.equal(told, `${nats(lens.heads[34].ablation[by] as number)}; all of layer 4: ${nats(lens.layers[4].ablation[by] as number)}`);
  }
  const most = Math.max(...lens.layers.map(({ ablation }) => Math.abs(ablation.resample as number)));
  assert.equal(
    await page
      .locator("#dashboard .legend")
      .nth(1)
      .innerText()
      .then(text => text.replace(/\s+/g, " ")),
    `−${number(most)} +${number(most)} nats all heads of a layer`,
  );
  await cells.nth(4 * 9 + 2).focus();
  for (const key of ["End", "ArrowUp", "ArrowLeft", "ArrowRight"]) await page.keyboard.press(key);
  assert.match(await page.locator("#dashboard .readout").innerText(), /^Layer 3, all heads: loss without it \(resample\)/);
  await page.keyboard.press("Enter");
  assert.match(page.url(), /#L4H2$/, "a layer is no head that could be shown");
  await page.getByLabel("Colour by").selectOption({ label: "Entropy" });
  assert.equal(await cells.count(), 48);
  assert.deepEqual(problems, []);
});

test("the mass on a named range can be chosen, and is told of the head, in words and among the facts", async () => {
  const { page, problems } = await open(lens, "#L4H0");
  const row = (of: Float64Array, q: number): number => of.subarray(q * tokens + 18, q * tokens + 22).reduce((a, b) => a + b);
  const masses = weights.map(of => Array.from({ length: tokens - 21 }, (_, i) => row(of, i + 21)).reduce((a, b) => a + b) / (tokens - 21));
  const lasts = weights.map(of => row(of, tokens - 1));
  for (const [label, name, values] of [
    ["Mass on “The meal”", "mass on “The meal”", masses],
    ["Last row's mass on “The meal”", "last row's mass on “The meal”", lasts],
  ] as const) {
    await page.getByLabel("Colour by").selectOption({ label });
    const cells = page.getByRole("gridcell");
    assert.deepEqual(
      await cells.evaluateAll(all => all.map(cell => cell.getAttribute("aria-label"))),
      values.map((value, i) => `Layer ${Math.floor(i / 8)}, head ${i % 8}: ${name} ${percent(value)}`),
    );
    assert.match(await page.locator("#dashboard .says").innerText(), /tokens 18 to 21, “a piece of cheese”/);
    const best = values.indexOf(Math.max(...values));
    const colour = await cells.nth(best).evaluate(cell => getComputedStyle(cell).backgroundColor.match(/\d+/g)!.map(Number));
    assert.deepEqual(colour, sequential(1, false), "the most has the last colour");
    const told = page.locator("#head .numbers div").filter({ has: page.getByText(label, { exact: true }) });
    assert.equal(await told.locator("dd").innerText(), percent(values[32]));
  }
  const [most, last] = [masses, lasts].map(values => values.indexOf(Math.max(...values)));
  const name = (head: number): string => `ayer ${Math.floor(head / 8)}, head ${head % 8}`;
  assert.match(
    await page.locator(".fact", { hasText: "Mass on “The meal”" }).innerText(),
    new RegExp(`L${name(most)} gives most to .*: ${percent(masses[most])} of .* it is l${name(last)}: ${percent(lasts[last])}\\.`),
  );
  assert.match(await page.locator("#run").innerText(), /Range “fox”\s+token 8, “fox”/);
  assert.deepEqual(problems, []);
});

test("how alike any two heads attend is drawn in order of clusters, and told to pointer and keys", async () => {
  const pairs = similarities(weights);
  const order = lens.heads
    .map((_, at) => at)
    .sort((a, b) => (lens.heads[a].cluster as number) - (lens.heads[b].cluster as number) || a - b);
  const pair = (at: number): number => pairs[order[Math.floor(at / 48)] * 48 + order[at % 48]];
  const map = "#alike canvas.map";
  const { page, problems } = await open(lens, "#L4H0");
  await page.waitForFunction(map => document.querySelector<HTMLElement>(map)!.dataset.drawn, map);
  const size = (await side(page, map)) / 48;
  const middles = Array.from({ length: 48 * 48 }, (_, at): [number, number] => [
    Math.floor(((at % 48) + 0.5) * size),
    Math.floor((Math.floor(at / 48) + 0.5) * size),
  ]);
  const [paper, full] = [lightness(sequential(0, false)), lightness(sequential(1, false))];
  (await pixels(page, middles, map)).forEach((pixel, at) => {
    const expected = paper + ((full - paper) * pair(at)) / 255;
    assert.ok(Math.abs(lightness(pixel) - expected) < 0.01, `pair ${at}: ${lightness(pixel)}, not ${expected}`);
  });
  const words = (row: number, column: number): string => {
    const [a, b] = [order[row], order[column]];
    const name = (head: number): string => `ayer ${Math.floor(head / 8)}, head ${head % 8}`;
    const both = lens.heads[a].cluster === lens.heads[b].cluster ? `; both are of cluster ${lens.heads[a].cluster}` : "";
    return `L${name(a)} and l${name(b)}: similarity ${(pairs[a * 48 + b] / 255).toFixed(2)}${both}`;
  };
  const out = page.locator("#alike .readout");
  await page.locator(map).evaluate(canvas => canvas.scrollIntoView({ block: "start" }));
  const box = (await page.locator(map).boundingBox())!;
  await page.mouse.move(box.x + 76 + 30.5 * size, box.y + 56 + 7.5 * size);
  assert.equal(await out.innerText(), words(7, 30));
  await page.mouse.move(0, 0);
  await page.locator(map).focus();
  for (const key of ["ArrowDown", "Shift+ArrowDown", "ArrowDown", "ArrowRight"]) await page.keyboard.press(key);
  await page.locator("#alike .readout", { hasText: "and" }).waitFor();
  assert.equal(await out.innerText(), words(11, 1));
  await page.keyboard.press("Enter");
  const chosen = order[11];
  assert.match(page.url(), new RegExp(`#L${Math.floor(chosen / 8)}H${chosen % 8}$`));
  const near = order.filter(head => head !== chosen).sort((a, b) => pairs[chosen * 48 + b] - pairs[chosen * 48 + a]);
  assert.deepEqual(
    await page.locator("#alike .near span").allInnerTexts(),
    near.slice(0, 8).map(head => `${Math.floor(head / 8)}·${head % 8}${(pairs[chosen * 48 + head] / 255).toFixed(2)}`),
  );
  await page.locator("#alike .near button").first().click();
  assert.match(page.url(), new RegExp(`#L${Math.floor(near[0] / 8)}H${near[0] % 8}$`));
  assert.deepEqual(problems, []);
  const dark = await open(lens, "", { colorScheme: "dark" });
  await dark.page.waitForFunction(map => document.querySelector<HTMLElement>(map)!.dataset.drawn, map);
  const least = middles.findIndex((_, at) => pair(at) === Math.min(...pairs));
  const [high, low] = (await pixels(dark.page, [middles[0], middles[least]], map)).map(lightness);
  assert.ok(Math.abs(high - lightness(sequential(1, true))) < 0.01 && low < high - 0.3, `${high} ${low}`);
  assert.deepEqual(dark.problems, []);
});

test("heads are chosen in the dashboard, the gallery, the facts and the choices, and the address keeps it", async () => {
  const { page, problems } = await open(lens, "#L3H2");
  const chosen = async (): Promise<string> =>
    `${await page.getByLabel("Layer", { exact: true }).inputValue()} ${await page.getByLabel("Head", { exact: true }).inputValue()}`;
  assert.equal(await chosen(), "3 2");
  await redrawn(page, () => page.getByRole("gridcell").nth(13).click());
  assert.equal(await chosen(), "1 5");
  assert.equal(await page.getByRole("gridcell").nth(13).getAttribute("aria-selected"), "true");
  await redrawn(page, () => page.getByRole("button", { name: "Heat map of layer 5, head 7" }).click());
  assert.equal(await chosen(), "5 7");
  await redrawn(page, () => page.getByRole("button", { name: "Next head" }).click());
  assert.equal(await chosen(), "0 0");
  await redrawn(page, () => page.getByLabel("Head", { exact: true }).selectOption("4"));
  assert.match(page.url(), /#L0H4$/);
  await redrawn(page, () => page.locator(".to-head", { hasText: "5·3" }).first().click());
  assert.equal(await chosen(), "5 3");
  assert.deepEqual(problems, []);
});

test("the dashboard's cells are reached and chosen with keys alone", async () => {
  const { page } = await open(lens, "#L0H0");
  await page.getByLabel("Colour by").focus();
  await page.keyboard.press("Tab");
  for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"]) await page.keyboard.press(key);
  assert.match(await page.locator("#dashboard .readout").innerText(), /^Layer 2, head 2: entropy/);
  await redrawn(page, () => page.keyboard.press("Enter"));
  assert.match(page.url(), /#L2H2$/);
});

test("the gallery can be ordered by a measure", async () => {
  const { page } = await open(lens);
  await page.getByLabel("Order by").selectOption({ label: "induction" });
  const [first] = await page.locator(".gallery .name").allInnerTexts();
  const best = lens.heads.reduce((a, b) => ((a.scores.induction as number) > (b.scores.induction as number) ? a : b));
  assert.ok(first.startsWith(`${best.layer}·${best.head}`), first);
});

test("a chart reads its values out to keys", async () => {
  const { page } = await open(lens);
  await page.locator("#positions .plot").first().focus();
  await page.keyboard.press("End");
  const last = lens.texts[0].loss![tokens - 1] as number;
  assert.match(await page.locator("#positions .readout").first().innerText(), new RegExp(`^Token 68 “\\.”: loss ${number(last)},`));
  await page.locator(".charts .plot").first().focus();
  await page.keyboard.press("Home");
  assert.match(await page.locator(".charts .readout").first().innerText(), /^[\d.]+ % on the token itself; all heads: /);
});

test("a token shows what it read, by click and by key", async () => {
  const { page, problems } = await open(lens, "#L4H0");
  await page.locator(".tokens span").nth(25).click();
  const truth = [...weights[32].subarray(25 * tokens, 26 * tokens)].sort((a, b) => b - a).slice(0, 8);
  assert.deepEqual(await page.locator(".reading .weight").allInnerTexts(), truth.map(percent));
  assert.equal(await page.locator(".tokens span[aria-selected=true]").innerText(), " young");
  await page.locator(".tokens").focus();
  await page.keyboard.press("ArrowRight");
  assert.match(await page.locator(".reading p").first().innerText(), /^Token 26 “·crow” reads, by layer 4, head 0:/);
  await page.keyboard.press("ArrowDown");
  assert.notEqual(await page.locator(".tokens").getAttribute("aria-activedescendant"), "token-26");
  await page.getByLabel("Show", { exact: true }).selectOption({ label: "who reads the token" });
  await page.keyboard.press("Home");
  assert.ok((await page.locator(".lines path").count()) > 0);
  await page.getByLabel("lines").uncheck();
  assert.equal(await page.locator(".lines path").count(), 0);
  assert.deepEqual(problems, []);
});

test("light and dark follow the system, until the reader chooses", async () => {
  const { page, problems } = await open(lens, "", { colorScheme: "dark" });
  const paper = (colour: string): Promise<unknown> =>
    page.waitForFunction(is => getComputedStyle(document.body).backgroundColor === is, colour);
  const [light, dark] = ["rgb(253, 253, 251)", "rgb(22, 24, 27)"];
  await paper(dark);
  await page.getByRole("radio", { name: "Light" }).check();
  await paper(light);
  await page.emulateMedia({ colorScheme: "light" });
  await page.getByRole("radio", { name: "Dark" }).check();
  await paper(dark);
  await page.getByRole("radio", { name: "System" }).check();
  await paper(light);
  await page.emulateMedia({ colorScheme: "dark" });
  await paper(dark);
  assert.deepEqual(problems, []);
});

test("nothing sticks out at the width of a phone", async () => {
  for (const width of [390, 320]) {
    const { page, problems } = await open(lens, "", { viewport: { width, height: 844 }, hasTouch: true, isMobile: true });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
    await page.locator("#head").scrollIntoViewIfNeeded();
    for (const map of await page.locator("canvas.map").all()) assert.ok((await map.boundingBox())!.width <= width);
    await page.getByLabel("Colour by").selectOption({ label: "Loss without it (zero)" });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
    const cut = (): number => [...document.querySelectorAll("td")].filter(cell => cell.scrollWidth > cell.clientWidth).length;
    assert.equal(await page.evaluate(cut), 0);
    assert.deepEqual(problems, []);
  }
});

test("it fits after the window was made narrow", async () => {
  const { page } = await open(lens, "", { viewport: { width: 1280, height: 860 } });
  await page.locator(".lines path").first().waitFor();
  await page.setViewportSize({ width: 390, height: 844 });
  await page.waitForFunction(() => document.querySelector(".lines")!.getBoundingClientRect().width < 390);
  const over = (): number => [...document.querySelectorAll("main, .tokens")].filter(part => part.scrollWidth > part.clientWidth).length;
  assert.equal(await page.evaluate(over), 0);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
});
