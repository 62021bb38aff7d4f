// The server's page, against a server that answers as regard's does.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { BrowserContextOptions, Page } from "playwright-core";
import { launch, open as openIn } from "../browser";
import { serve, type Manner, type Mock } from "../server";

const browser = launch();
const mocks: Mock[] = [];
after(async () => {
  await (await browser).close();
  for (const mock of mocks) await mock.close();
});

async function open(
  manner: Partial<Manner> = {},
  options: BrowserContextOptions = {},
): Promise<{ page: Page; mock: Mock; problems: string[] }> {
  const mock = await serve({ chats: false, pause: 2, attention: 0, ...manner });
  mocks.push(mock);
  const { page, problems } = await openIn(await browser, mock.url, options, mock.url);
  await page.waitForFunction(() => document.title !== "regard");
  return { page, mock, problems };
}

const WHOLE = "The old fox said <b>“no”.\nThe old";

test("a text is continued as it streams, with its numbers", async () => {
  const { page, mock, problems } = await open({ pause: 40 });
  await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).first().fill("Long ago");
  await page.getByLabel("Tokens", { exact: true }).fill("12");
  await page.getByRole("button", { name: "Continue" }).first().click();
  await page.getByText("The old fox").waitFor();
  assert.notEqual(await page.locator(".answer").innerText(), WHOLE);
  await page.getByText("it reached the number of tokens").waitFor();
  assert.equal(await page.locator(".answer").evaluate(answer => answer.textContent), WHOLE);
  assert.equal(
    await page
      .locator(".log")
      .first()
      .evaluate(log => log.textContent),
    "Long ago" + WHOLE,
  );
  assert.match(
    await page.locator(".pane .readout").first().innerText(),
    /^12 tokens for a prompt of 4, the first after [\d.]+ s, then [\d.]+ a second;/,
  );
  const { route, body } = mock.asked.at(-1)!;
  assert.equal(route, "/v1/completions");
  assert.deepEqual(body, { prompt: "Long ago", max_tokens: 12, stream: true, stream_options: { include_usage: true } });
  assert.equal(await page.getByLabel("Mode").count(), 0);
  await page.getByText("The engine").waitFor();
  assert.deepEqual(
    problems.filter(problem => !/400/.test(problem)),
    [],
  );
});

test("a conversation, when the model has a template", async () => {
  const { page, mock } = await open({ chats: true });
  await page.getByLabel("Mode").waitFor();
  await page.getByLabel("Tokens", { exact: true }).fill("3");
  await page.getByLabel("Temperature").fill("0.5");
  for (const say of ["Hello", "And then?"]) {
    await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).first().fill(say);
    await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).first().press("Control+Enter");
    await page.getByRole("button", { name: "Send" }).first().and(page.locator(":enabled")).waitFor();
    await page.getByText("3 tokens for").waitFor();
  }
  const { route, body } = mock.asked.at(-1)!;
  assert.equal(route, "/v1/chat/completions");
  assert.deepEqual(body.messages, [
    { role: "user", content: "Hello" },
    { role: "assistant", content: "The old fox" },
    { role: "user", content: "And then?" },
  ]);
  assert.equal(body.temperature, 0.5);
  assert.equal(await page.locator(".turn").count(), 4);
  await page.getByRole("button", { name: "New conversation" }).first().click();
  assert.equal(await page.locator(".turn").count(), 0);
  await page.getByLabel("Mode").selectOption("text");
  assert.ok(await page.getByRole("button", { name: "Continue" }).first().isVisible());
});

test("stop ends it, at the server too", async () => {
  const { page, mock } = await open({ pause: 30 });
  await page.getByRole("button", { name: "Continue" }).first().click();
  await page.getByText("The old fox").waitFor();
  await page.getByRole("button", { name: "Stop" }).first().click();
  await page.getByText(/^Stopped after [\d.]+ s\.$/).waitFor();
  for (let i = 0; i < 50 && mock.left === 0; i++) await new Promise(done => setTimeout(done, 20));
  assert.equal(mock.left, 1);
  assert.ok(await page.getByRole("button", { name: "Continue" }).first().isEnabled());
  assert.equal(await page.locator(".problem").first().innerText(), "");
});

test("what goes wrong is said in words", async () => {
  const { page, mock } = await open();
  const cases = [
    ["busy", "as many prompts as may wait are waiting (try again in 2 s)"],
    ["fault", "the model could not compute it"],
    ["cut", "The answer ended before it was whole."],
    ["break", "The connection broke before the answer was whole."],
  ];
  for (const [prompt, said] of cases) {
    await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).first().fill(prompt);
    await page.getByRole("button", { name: "Continue" }).first().click();
    await page.locator(".pane .problem", { hasText: said }).waitFor();
  }
  await page.getByLabel("Tokens", { exact: true }).fill("-3");
  await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).first().fill("x");
  await page.getByRole("button", { name: "Continue" }).first().click();
  await page.locator(".pane .problem", { hasText: "max_tokens is -3 and must be" }).waitFor();
  await mock.close();
  await page.getByRole("button", { name: "Continue" }).first().click();
  await page.locator(".pane .problem", { hasText: "The server does not answer. Is it still running?" }).waitFor();
  await page.getByText("The server does not answer. What is shown is the last that it said.").waitFor();
});

test("two prompts side by side are answered at once", async () => {
  const { page, mock } = await open({ pause: 20 });
  assert.equal(await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).count(), 2);
  assert.equal(await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).nth(1).isVisible(), false);
  await page.getByLabel("two prompts side by side").check();
  await page.getByLabel("Tokens", { exact: true }).fill("12");
  const [left, right] = [(await page.locator(".pane").nth(0).boundingBox())!, (await page.locator(".pane").nth(1).boundingBox())!];
  assert.ok(right.x > left.x + left.width && right.y === left.y);
  await page.getByRole("button", { name: "Ask both at once" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".pane button[type=submit]:disabled").length === 2);
  await page.waitForFunction(
    whole => [...document.querySelectorAll(".answer")].filter(answer => answer.textContent === whole).length === 2,
    WHOLE,
  );
  assert.deepEqual(
    mock.asked.slice(-2).map(({ body }) => body.prompt),
    ["Once upon a time", "Once upon a time there was a king"],
  );
});

test("pages, batch and cache are shown as the metrics tell them", async () => {
  const { page } = await open();
  await page.getByText("Of 1,000 pages: 150 held by requests250 cached for prompts that begin alike600 free").waitFor();
  const [held, cached, free] = await page.locator(".pages span").evaluateAll(parts => parts.map(part => part.getAttribute("style")));
  assert.deepEqual([held, cached, free], ["width:15%", "width:25%", "width:60%"]);
  const numbers = await page.locator("#engine .numbers").innerText();
  for (const text of ["Running\n2", "Waiting\n1", "100 of 400, 25 %", "Preemptions\n0"]) assert.ok(numbers.includes(text), numbers);
  await page.locator("#engine dd", { hasText: /^4\.00$/ }).waitFor();
});

test("a phone and the dark", async () => {
  const { page } = await open({ chats: true }, { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  await page.getByLabel("two prompts side by side").check();
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(22, 24, 27)");
});
