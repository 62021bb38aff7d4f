// What the heads read, beside an answer on the server's page: shown as it is, walked through by pointer and keys, read again without heads.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { BrowserContextOptions, Locator, Page } from "playwright-core";
import { mean, number, percent } from "../../src/scale";
import { launch, open as openIn } from "../browser";
import { small } from "../fixture";
import { reading, serve, SLOW, type Manner, type Mock } from "../server";

const browser = launch();
const mocks: Mock[] = [];
after(async () => {
  await (await browser).close();
  for (const mock of mocks) await mock.close();
});

interface Opened {
  page: Page;
  mock: Mock;
  problems: string[];
}

async function open(manner: Partial<Manner> = {}, options: BrowserContextOptions = {}): Promise<Opened> {
  const mock = await serve({ chats: false, pause: 1, attention: 512, ...manner });
  mocks.push(mock);
  const { page, problems } = await openIn(await browser, mock.url, { reducedMotion: "reduce", ...options }, mock.url);
  await page.waitForFunction(() => document.title !== "regard");
  return { page, mock, problems: problems };
}

const PROMPT = "Once upon a time there was an old fox and a young crow";
const TOKENS = [...PROMPT.split(/(?= )/), "The", " old", " fox", " said", " <b>", "“", "no", "”"];

/** Asks, and waits for what the heads read. */
async function ask(page: Page, prompt = PROMPT, pane = 0): Promise<Locator> {
  await page.getByLabel("Tokens", { exact: true }).fill("8");
  await page.locator(".pane textarea").nth(pane).fill(prompt);
  await page.locator(".pane button[type=submit]").nth(pane).click();
  const explorer = page.locator(".explorer").nth(pane);
  await explorer.locator(".tokens").waitFor();
  return explorer;
}

/** The weights of a row, the largest first, with their keys. */
function row(head: number, token: number, tokens: readonly string[] = TOKENS): [key: number, weight: number][] {
  const weights = small(tokens, 2).weights[head].subarray(token * tokens.length, (token + 1) * tokens.length);
  return [...weights].map((weight, key): [number, number] => [key, weight]).sort((a, b) => b[1] - a[1]);
}

const unforeseen = (problems: string[]): string[] => problems.filter(problem => !/400|429/.test(problem));

test("an answer's tokens are walked through, by click and by key, and every head tells what it reads there", async () => {
  const { page, mock, problems } = await open();
  const explorer = await ask(page);
  assert.deepEqual(mock.asked.at(-1)!.body.attention, {});
  const words = explorer.locator(".tokens > span");
  assert.deepEqual(await words.evaluateAll(all => all.map(word => word.textContent)), TOKENS);
  await explorer.getByLabel("Layer", { exact: true }).first().selectOption("1");
  await explorer.getByLabel("Head", { exact: true }).first().selectOption("2");
  await words.nth(9).click();
  const read = row(10, 9).slice(0, 8);
  assert.deepEqual(
    await explorer.locator(".reading .weight").allInnerTexts(),
    read.map(([, weight]) => percent(weight)),
  );
  assert.ok((await explorer.locator(".lines path").count()) > 0);
  const every = (token: number): string[] =>
    Array.from({ length: 16 }, (_, head) => {
      const told = row(head, token).slice(0, 3);
      const said = told.map(([key, weight]) => `“${TOKENS[key].replace(/ /g, "·")}” ${percent(weight)}`).join(", ");
      return `Layer ${Math.floor(head / 8)}, head ${head % 8} reads ${said}`;
    });
  const cells = explorer.locator(".every [role=gridcell]");
  const labels = (): Promise<(string | null)[]> => cells.evaluateAll(all => all.map(cell => cell.getAttribute("aria-label")));
  assert.deepEqual(await labels(), every(9));
  await explorer.locator(".tokens").focus();
  await page.keyboard.press("ArrowRight");
  assert.deepEqual(await labels(), every(10));
  assert.match(await explorer.locator(".reading p").first().innerText(), /^Token 10 “·a” reads, by layer 1, head 2:/);
  await page.keyboard.press("Tab"); // to the grid of heads
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowRight");
  assert.equal(await explorer.locator(".every .readout").innerText(), every(10)[9]);
  await page.keyboard.press("Enter");
  assert.equal(await explorer.getByLabel("Layer", { exact: true }).first().inputValue(), "1");
  assert.equal(await explorer.getByLabel("Head", { exact: true }).first().inputValue(), "1");
  assert.match(await explorer.locator(".reading p").first().innerText(), /^Token 10 “·a” reads, by layer 1, head 1:/);
  assert.deepEqual(unforeseen(problems), []);
});

test("the views of the report are there: entropies, every head, one head's map with zoom", async () => {
  const { page, problems } = await open();
  const explorer = await ask(page);
  assert.deepEqual(unforeseen(problems), []);
  assert.deepEqual(await explorer.locator("h2").allInnerTexts(), ["What the heads read", "Heads at a glance", "Every head", "One head"]);
  const { lens } = small(TOKENS, 2);
  assert.equal(
    await explorer.locator("#first-prompt-dashboard [role=gridcell]").nth(5).getAttribute("aria-label"),
    `Layer 0, head 5: entropy ${number(lens.heads[5].means.entropy)} nats`,
  );
  await explorer.locator("#first-prompt-dashboard [role=gridcell]").nth(5).click();
  assert.equal(await explorer.getByLabel("Head", { exact: true }).first().inputValue(), "5");
  await explorer.locator(".gallery canvas").first().scrollIntoViewIfNeeded();
  await page.waitForFunction(() => {
    const canvas = document.querySelector<HTMLCanvasElement>(".gallery canvas")!;
    return new Set(canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height).data).size > 10;
  });
  const map = explorer.locator("canvas.map");
  await map.focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("+");
  await page.keyboard.press("ArrowDown");
  assert.match(await explorer.locator(".map-view .readout").innerText(), /^Token 1 “·upon” reads token 0 “Once”: 0\.\d+$/);
  await page.keyboard.press("Enter");
  assert.match(await explorer.locator(".reading p").first().innerText(), /^Token 1 “·upon” reads, by layer 0, head 5:/);
});

test("sinks are hidden from what is listed, joined and coloured", async () => {
  const { page } = await open();
  const explorer = await ask(page);
  await explorer.locator(".tokens > span").nth(12).click();
  await explorer.getByLabel("hide the first 4 tokens (sinks)").first().check();
  const head = Number(await explorer.getByLabel("Head", { exact: true }).first().inputValue());
  const left = row(head, 12)
    .slice(0, 8)
    .filter(([key]) => key >= 4);
  assert.deepEqual(
    await explorer.locator(".reading .at").allInnerTexts(),
    left.map(([key]) => String(key)),
  );
  const shaded = await explorer.locator('.tokens > span[style*="background"]').evaluateAll(all => all.map(word => word.id));
  assert.deepEqual(new Set(shaded), new Set(left.map(([key]) => `first-prompt-token-${key}`)));
  assert.ok(await explorer.getByLabel("hide the first 4 tokens (sinks)").last().isChecked(), "both switches are one");
  await explorer.getByLabel("log scale").first().check();
  assert.ok((await explorer.locator('.tokens > span[style*="background"]').count()) > 0);
});

test("heads that are switched off are left out of a new reading, whose loss is compared", async () => {
  const { page, mock, problems } = await open();
  const explorer = await ask(page);
  const before = mean(reading(TOKENS).texts[0].loss!) as number;
  const loss = explorer.locator(".loss");
  assert.equal(await loss.innerText(), `With all heads the loss is ${number(before)} nats a token, over prompt and answer.`);
  await explorer.getByText("Leave heads out").focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Space");
  await explorer.getByText(`Without layer 0, head 1: the loss is ${number(before + 0.25)} nats a token, 0.250 more`).waitFor();
  const asked = mock.asked.at(-1)!;
  assert.equal(asked.route, "/v1/completions");
  const told = reading(TOKENS).texts[0].ids;
  assert.deepEqual(asked.body, { prompt: told, max_tokens: 0, attention: { without: [[0, 1]] } });
  // The focus is where it was, and the next key goes on from there.
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await explorer.getByText(`Without layer 0, head 1; layer 1, head 1: the loss is ${number(before + 0.5)} nats`).waitFor();
  assert.deepEqual(mock.asked.at(-1)!.body.attention.without, [
    [0, 1],
    [1, 1],
  ]);
  const off = explorer.locator(".switches .out");
  assert.deepEqual(await off.evaluateAll(all => all.map(cell => cell.getAttribute("aria-label"))), [
    "layer 0, head 1, left out",
    "layer 1, head 1, left out",
  ]);
  const asks = mock.asked.length;
  await explorer.getByRole("button", { name: "Put all back" }).click();
  assert.match(await loss.innerText(), /^With all heads/);
  assert.equal(mock.asked.length, asks, "the reading with all heads is known");
  assert.deepEqual(unforeseen(problems), []);
});

test("what goes wrong is said in words, and what was there stays", async () => {
  const { page } = await open();
  const explorer = await ask(page);
  await explorer.getByText("Leave heads out").click();
  await explorer.locator(".switches [role=gridcell]").nth(15).click();
  await explorer.locator(".problem", { hasText: "8 requests with attention are being answered" }).waitFor();
  assert.equal(await explorer.locator(".loss").innerText(), "What is shown is the reading before.");
  assert.equal(await explorer.locator(".tokens > span").count(), TOKENS.length);
  for (const [prompt, said] of [
    ["unread", "the model could not compute it"],
    ["unlike", 'What the heads read cannot be shown: format is "regard-lens/7" and must be "regard-lens/1"'],
  ]) {
    await page.locator(".pane textarea").first().fill(prompt);
    await page.locator(".pane button[type=submit]").first().click();
    await page.locator(".pane > .problem", { hasText: said }).first().waitFor();
    assert.equal(await explorer.isVisible(), false);
    assert.match(await page.locator(".answer").first().innerText(), /^The old fox said/);
  }
});

test("the wait for the reading is said, and does not count as the model's", async () => {
  const { page } = await open();
  await page.getByLabel("Tokens", { exact: true }).fill("8");
  await page.locator(".pane textarea").first().fill("slow");
  await page.locator(".pane button[type=submit]").first().click();
  await page.getByText("Reading once more what each head reads …").waitFor();
  await page.locator(".explorer .tokens").first().waitFor();
  const speed = /then ([\d.,]+) a second/.exec(await page.locator(".pane > .readout").first().innerText())![1];
  assert.ok(Number(speed.replace(",", "")) > 7 / (SLOW / 1000), speed); // seven tokens after the first
});

test("what is not allowed is not asked for, and what is not wanted neither", async () => {
  const { page, mock } = await open({ attention: 0 });
  await page.getByText("To see what each head reads, start the server with --attention 512.").waitFor();
  await page.getByLabel("Tokens", { exact: true }).fill("8");
  await page.locator(".pane button[type=submit]").first().click();
  await page.getByText("it reached the number of tokens").waitFor();
  assert.equal("attention" in mock.asked.at(-1)!.body, false);
  const other = await open();
  await other.page.getByLabel("what each head reads, of up to 512 tokens").uncheck();
  await other.page.getByLabel("Tokens", { exact: true }).fill("8");
  await other.page.locator(".pane button[type=submit]").first().click();
  await other.page.getByText("it reached the number of tokens").waitFor();
  assert.equal("attention" in other.mock.asked.at(-1)!.body, false);
  assert.equal(await other.page.locator(".explorer").first().isVisible(), false);
});

test("two prompts are explored side by side, each by itself", async () => {
  const { page, problems } = await open();
  await page.getByLabel("two prompts side by side").check();
  const [one, two] = [await ask(page), await ask(page, "Long ago there was a king", 1)];
  const [left, right] = [(await one.boundingBox())!, (await two.boundingBox())!];
  assert.ok(right.x >= left.x + left.width, "side by side");
  await two.locator(".tokens > span").nth(3).click();
  await two.getByLabel("Head", { exact: true }).first().selectOption("6");
  assert.match(await two.locator(".reading p").first().innerText(), /^Token 3 “·was” reads, by layer 0, head 6:/);
  assert.match(await one.locator(".reading p").first().innerText(), /^Token 20 “”” reads, by layer 0, head 0:/);
  const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map(part => part.id));
  assert.deepEqual(
    ids.filter((id, at) => ids.indexOf(id) !== at),
    [],
    "no id is there twice",
  );
  await two.locator("#second-prompt-dashboard [role=gridcell]").nth(9).click();
  assert.equal(await one.getByLabel("Head", { exact: true }).first().inputValue(), "0");
  assert.deepEqual(unforeseen(problems), []);
});

test("nothing sticks out, on a laptop with two prompts and on a phone; in the dark too", async () => {
  for (const [width, isMobile] of [
    [1280, false],
    [390, true],
    [320, true],
  ] as const) {
    const { page, problems } = await open({}, { viewport: { width, height: 844 }, isMobile, hasTouch: isMobile, colorScheme: "dark" });
    await page.getByLabel("two prompts side by side").check();
    await ask(page);
    const explorer = await ask(page, PROMPT, 1);
    await explorer.getByText("Leave heads out").click();
    const over = await page.evaluate(
      most =>
        [...document.querySelectorAll("main *")]
          .filter(part => part.getBoundingClientRect().right > most && !part.closest(".scroll, .tokens, details:not([open])"))
          .map(part => `${part.tagName} ${part.className}`),
      width,
    );
    assert.deepEqual(over, [], `at ${width}`);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
    assert.ok((await explorer.locator("canvas.map").boundingBox())!.width <= width);
    assert.deepEqual(unforeseen(problems), []);
  }
});
