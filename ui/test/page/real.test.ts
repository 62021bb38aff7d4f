// Both pages as the command itself serves and writes them: REGARD names the binary, and without it there is nothing to test.

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import type { Lens } from "../../src/lens";
import { number, percent } from "../../src/scale";
import { launch, open } from "../browser";

const regard = process.env.REGARD ?? "";
const only = { skip: regard ? false : "REGARD names no binary" };
const TEXT = "Once upon a time there was a king who had three daughters, and the youngest was so fair that the sun wondered at her";
let server: ChildProcess | undefined;
const browser = regard ? launch() : undefined;
after(async () => {
  server?.kill();
  await (await browser)?.close();
});

async function serve(...options: string[]): Promise<string> {
  server?.kill();
  server = spawn(regard, ["serve", "--port", "0", "--no-log", ...options], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(server.stdout!, "data");
  return String(line).trim().split(" ").at(-1)!;
}

test("the server's page shows what the server says, and its pages", only, async () => {
  const url = await serve();
  const { page, problems } = await open((await browser)!, url, {}, url);
  await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).first().fill(TEXT);
  await page.getByLabel("Tokens", { exact: true }).fill("20");
  await page.getByLabel("Temperature").fill("0");
  await page.getByRole("button", { name: "Continue" }).first().click();
  await page.getByText("20 tokens for a prompt of").waitFor();
  const answer = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt: TEXT, max_tokens: 20, temperature: 0 }),
  });
  const { choices } = (await answer.json()) as { choices: { text: string }[] };
  assert.equal(
    await page
      .locator(".answer")
      .first()
      .evaluate(node => node.textContent),
    choices[0].text,
  );
  await page.locator(".key-cached", { hasText: /^[1-9]\d* cached/ }).waitFor();
  await page.locator("#engine dd", { hasText: /^16 of \d+/ }).waitFor();
  const unforeseen = problems.filter(problem => !/400/.test(problem)); // it asks whether there is a chat template
  assert.deepEqual(unforeseen, []);
});

test("what the heads read of an answer is what `regard inspect` tells of its tokens, and a head can be left out", only, async () => {
  const url = await serve("--attention", "512");
  const { page, problems } = await open((await browser)!, url, {}, url);
  await page.getByRole("textbox", { name: "Prompt", includeHidden: true }).first().fill(TEXT);
  await page.getByLabel("Tokens", { exact: true }).fill("20");
  await page.getByLabel("Temperature").fill("0");
  await page.getByRole("button", { name: "Continue" }).first().click();
  const explorer = page.locator(".explorer").first();
  await explorer.locator(".tokens").waitFor();
  const words = await explorer.locator(".tokens > span").evaluateAll(all => all.map(word => word.textContent.replaceAll("⏎", "")).join(""));
  const log = await page
    .locator(".log")
    .first()
    .evaluate(node => node.textContent);
  assert.equal(words, log);
  const [inspected] = JSON.parse(`[${execFileSync(regard, ["inspect", words, "--json", "-"], { encoding: "utf8" })}]`) as Lens[];
  const entropies = await explorer
    .locator("#first-prompt-dashboard [role=gridcell]")
    .evaluateAll(all => all.map(cell => cell.getAttribute("aria-label")));
  assert.deepEqual(
    entropies,
    inspected.heads.map(({ layer, head, means }) => `Layer ${layer}, head ${head}: entropy ${number(means.entropy)} nats`),
  );
  await explorer.getByText("Leave heads out").click();
  await explorer.locator(".switches [role=gridcell]").first().click();
  await explorer.getByText(/^Without layer 0, head 0: the loss is [\d.]+ nats a token, [\d.]+ (more|less) than with all heads/).waitFor();
  assert.deepEqual(
    problems.filter(problem => !/400/.test(problem)),
    [],
  );
});

test("the report of a text is drawn", only, async () => {
  const file = join(await mkdtemp(join(tmpdir(), "regard-")), "report.html");
  const options = ["--ablate", "--range", "king=a king", "--json", "-", "--out", file];
  const lens = JSON.parse(execFileSync(regard, ["inspect", TEXT, ...options], { encoding: "utf8" })) as Lens;
  const { page, problems } = await open((await browser)!, pathToFileURL(file).href);
  assert.match(await page.title(), /story/);
  assert.equal(await page.locator(".gallery canvas").count(), 48);
  assert.match(await page.locator("#run").innerText(), /Weights are not an explanation/);
  const cells = page.locator("#dashboard [role=gridcell]");
  const labels = (): Promise<(string | null)[]> => cells.evaluateAll(all => all.map(cell => cell.getAttribute("aria-label")));
  await page.getByLabel("Colour by").selectOption({ label: "Mass on “king”" });
  const masses = lens.heads.map(({ layer, head, ranges }) => `Layer ${layer}, head ${head}: mass on “king” ${percent(ranges[0].mass)}`);
  assert.deepEqual(await labels(), masses);
  await page.getByLabel("Colour by").selectOption({ label: "Loss without it (resample)" });
  const change = lens.layers[3].ablation.resample as number;
  const told = `Layer 3, all heads: loss without it (resample) ${change > 0 ? "+" : ""}${number(change)} nats`;
  assert.equal((await labels())[4 * 9 - 1], told);
  await page.locator("#alike canvas").focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowRight");
  const alike = Buffer.from(lens.similarities!, "base64")[1] / 255; // the first cluster is that of the first head, and holds the second
  assert.equal(
    await page.locator("#alike .readout").innerText(),
    `Layer 0, head 0 and layer 0, head 1: similarity ${alike.toFixed(2)}; both are of cluster 0`,
  );
  assert.deepEqual(problems, []);
  await page.locator(".gallery canvas").first().scrollIntoViewIfNeeded(); // drawn when they come into view
  await page.waitForFunction(() => {
    const canvas = document.querySelector<HTMLCanvasElement>(".gallery canvas")!;
    return new Set(canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height).data).size > 10;
  });
});
