// Both pages as the command itself serves and writes them: REGARD names the binary, and without it there is nothing to test.

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
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

async function serve(): Promise<string> {
  server = spawn(regard, ["serve", "--port", "0", "--no-log"], { stdio: ["ignore", "pipe", "inherit"] });
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

test("the report of a text is drawn", only, async () => {
  const file = join(await mkdtemp(join(tmpdir(), "regard-")), "report.html");
  execFileSync(regard, ["inspect", TEXT, "--out", file]);
  const { page, problems } = await open((await browser)!, pathToFileURL(file).href);
  assert.match(await page.title(), /story/);
  assert.equal(await page.locator(".gallery canvas").count(), 48);
  assert.match(await page.locator("#run").innerText(), /Weights are not an explanation/);
  assert.deepEqual(problems, []);
  await page.locator(".gallery canvas").first().scrollIntoViewIfNeeded(); // drawn when they come into view
  await page.waitForFunction(() => {
    const canvas = document.querySelector<HTMLCanvasElement>(".gallery canvas")!;
    return new Set(canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height).data).size > 10;
  });
});
