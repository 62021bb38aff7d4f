import { launch, open, report } from "./browser";
import { long, small } from "./fixture";
const browser = await launch();
const short = await report(JSON.stringify(small().lens)), far = await report(JSON.stringify(long()));
const mode = process.argv[2] ?? "short";
for (const [w, h, scheme] of [[1280, 860, "light"], [1280, 860, "dark"], [390, 844, "light"]] as const) {
  const { page, problems } = await open(browser, (mode === "long" ? far : short) + "#L4H0", { colorScheme: scheme, viewport: { width: w, height: h }, reducedMotion: "reduce" });
  for (const part of ["run", "facts", "dashboard", "positions", "gallery", "head"]) {
    await page.locator("#" + part).evaluate(e => e.scrollIntoView());
    await page.waitForTimeout(150);
    const box = await page.locator("#" + part).boundingBox();
    await page.setViewportSize({ width: w, height: Math.min(1500, Math.ceil(box!.height) + 40) });
    await page.locator("#" + part).evaluate(e => e.scrollIntoView());
    await page.waitForTimeout(250);
    await page.screenshot({ path: `/tmp/ui-shots/${mode}-${w}-${scheme}-${part}.png` });
  }
  console.log(w, scheme, problems);
}
await browser.close();
