// What is missing, broken, hostile or very long.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { long, small } from "../fixture";
import { close, corner, drawn, open, redrawn } from "./common";

const { lens } = small();
after(close);

test("what was not measured is said in words, not drawn", async () => {
  const bare = {
    ...lens,
    model: { layers: 6, heads: 8 },
    run: null,
    texts: [{ tokens: lens.texts[0].tokens }],
    heads: lens.heads.map(({ layer, head }) => ({
      layer,
      head,
      means: null,
      scores: null,
      cluster: null,
      ablation: null,
      ranges: null,
      distances: null,
      by_position: null,
      received: null,
      top: null,
    })),
    layers: null,
    similarities: null,
    bins: null,
    position_loss: null,
  };
  const { page, problems } = await open(bare);
  const text = await page.locator("main").innerText();
  for (const said of [
    "The loss was not measured.",
    "Ablation was not measured.",
    "Entropy: not measured in this run.",
    "Nothing was measured by position.",
    "This report holds no heat maps.",
    "How alike any two heads attend is not in this report.",
    "This report holds no heat map of this head.",
    "How far it reads was not measured.",
    "How much each token is read was not measured.",
    "What single tokens read is not in this report.",
  ])
    assert.ok(text.includes(said), said);
  assert.ok(!/undefined|NaN|null/.test(text), text);
  assert.equal(await page.locator("#head canvas.map").isVisible(), false);
  assert.deepEqual(problems, []);
});

test("some heads without some parts", async () => {
  const heads = lens.heads.map((head, at) =>
    at % 2
      ? head
      : {
          ...head,
          maps: null,
          top: null,
          received: null,
          means: { ...head.means, entropy: null },
          by_position: { ...head.by_position, entropy: null },
        },
  );
  const { page, problems } = await open({ ...lens, heads, position_loss: null }, "#L0H0");
  assert.ok(await page.getByText("This report holds no heat map of this head.").isVisible());
  assert.ok(await page.getByText("The loss by position was not measured.").isVisible());
  assert.equal(await page.locator("td.none").count(), 24);
  assert.equal(await page.locator(".no-map").count(), 24);
  await redrawn(page, () => page.getByRole("button", { name: "Next head" }).click());
  assert.ok(await page.locator("#head canvas.map").isVisible());
  assert.deepEqual(problems, []);
});

test("broken data shows the error and nothing else", async () => {
  const cases: [unknown, RegExp][] = [
    ["null", /the data holds no data and must be filled by `regard inspect`/],
    ['{"format": "regard-lens/1", "model"', /JSON/],
    [{ ...lens, format: "regard-lens/9" }, /format is "regard-lens\/9" and must be "regard-lens\/1"/],
    [{ ...lens, heads: lens.heads.slice(1) }, /heads holds 47 and must hold 6 layers × 8 heads = 48/],
  ];
  for (const [data, message] of cases) {
    const { page, problems } = await open(data);
    assert.match(await page.getByRole("alert").innerText(), message);
    assert.equal(await page.locator("main > *").count(), 1);
    assert.equal(await page.locator("section").count(), 0);
    assert.deepEqual(problems, []);
  }
});

test("tokens and names are text, whatever they say", async () => {
  const evil = [
    "</script><script>window.evil=1</script>",
    "<img src=x onerror=window.evil=2>",
    "\u2028",
    "$&",
    "<!--",
    ...lens.texts[0].tokens.slice(5),
  ];
  const labels = ["</script><b>bold</b>"];
  const { page, problems } = await open({
    ...lens,
    model: { ...lens.model, name: "<i>m</i>$'" },
    run: { ...lens.run, labels },
    texts: [{ ...lens.texts[0], tokens: evil }],
  });
  assert.equal(await page.evaluate(() => (window as { evil?: number }).evil), undefined);
  assert.equal(await page.locator("main img, main b, main i").count(), 0);
  assert.equal(await page.title(), "What <i>m</i>$' attends to");
  assert.equal(await page.locator(".tokens span").first().innerText(), evil[0]);
  assert.deepEqual(problems, []);
});

test("several texts are listed, and the first is shown", async () => {
  const texts = [lens.texts[0], ...Array.from({ length: 24 }, (_, i) => ({ name: `text-${i}`, tokens: ["a", "b"], loss: [null, 1.5] }))];
  const { page } = await open({ ...lens, texts, run: { ...lens.run, texts: 25, tokens: 117 } });
  assert.match(await page.locator("#run").innerText(), /117 tokens in 25 texts/);
  assert.equal(await page.locator("#run .values tbody tr").count(), 20);
  assert.match(await page.locator("#run").innerText(), /5 more texts count in all means/);
});

test("many heads stay inside the page", async () => {
  const [layers, heads] = [40, 40];
  const all = Array.from({ length: layers * heads }, (_, i) => ({
    ...lens.heads[i % 48],
    layer: Math.floor(i / heads),
    head: i % heads,
    top: null,
  }));
  const { page, problems } = await open({ ...lens, model: { ...lens.model, layers, heads }, heads: all, similarities: null }, "", {
    viewport: { width: 390, height: 844 },
  });
  assert.equal(await page.getByRole("gridcell").count(), 1600);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  assert.deepEqual(problems, []);
});

test("100,000 tokens: it pans at thirty frames a second", async t => {
  const data = JSON.stringify(long());
  const start = performance.now();
  const { page, problems } = await open(data, "#L2H3");
  await page.waitForFunction(() => document.querySelector<HTMLElement>("#head canvas.map")!.dataset.drawn);
  t.diagnostic(`${(data.length / 1e6).toFixed(1)} MB of data, shown after ${(performance.now() - start).toFixed(0)} ms`);
  assert.match(await page.locator(".token-view").innerText(), /This text has 100,000 tokens\./);
  const { x, y } = await corner(page);
  for (let i = 0; i < 3; i++) await redrawn(page, () => page.getByRole("button", { name: "Zoom in" }).click());
  await page.mouse.move(x + 320, y + 320);
  const before = await drawn(page);
  await page.mouse.down();
  // A move before each frame, in the page itself: the test's own way to the mouse is slower than the screen.
  const times = await page.locator("#head canvas.map").evaluate(
    (canvas, [x, y]) =>
      new Promise<number[]>(done => {
        const times: number[] = [];
        const tick = (now: number): void => {
          times.push(now);
          if (times.length > 150) return done(times);
          const [clientX, clientY] = [x + 320 + 220 * Math.sin(times.length / 12), y + 320 + 220 * Math.cos(times.length / 12)];
          canvas.dispatchEvent(new PointerEvent("pointermove", { pointerId: 1, clientX, clientY, bubbles: true }));
          requestAnimationFrame(tick);
        };
        requestAnimationFrame(tick);
      }),
    [x, y] as const,
  );
  const frames = await drawn(page);
  await page.mouse.up();
  const gaps = times
    .slice(1)
    .map((time, i) => time - times[i])
    .sort((a, b) => a - b);
  const at = (share: number): number => gaps[Math.floor(share * (gaps.length - 1))];
  t.diagnostic(
    `panning: ${frames - before} pictures in ${gaps.length} frames; milliseconds a frame: ` +
      `median ${at(0.5).toFixed(1)}, 95 of 100 within ${at(0.95).toFixed(1)}, worst ${at(1).toFixed(1)}`,
  );
  assert.ok(frames - before >= 140 && at(0.5) < 1000 / 30, `median ${at(0.5)} ms, ${frames - before} pictures`);
  assert.deepEqual(problems, []);
});

test("a text of one token, and of none that the page can print", async () => {
  for (const tokens of [["A"], ["", "\u0000", "\ufffd"]]) {
    const { page, problems } = await open(small(tokens).lens, "#L0H1");
    await page.waitForFunction(() => document.querySelector<HTMLElement>("#head canvas.map")!.dataset.drawn);
    await page.locator("#head canvas.map").focus();
    await page.keyboard.press("ArrowDown");
    assert.match(await page.locator(".map-view .readout").innerText(), /^Token 0 “.*” reads token 0 “.*”: 1\.000$/);
    assert.ok(!/undefined|NaN|Infinity/.test(await page.locator("main").innerText()));
    assert.deepEqual(problems, []);
  }
});
