// Bundles each page to one HTML file: `src/NAME.html` with its style and its script inside, as dist/NAME.html. The crate that embeds it
// has a copy, so that it can be packaged on its own.

import { build } from "esbuild";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

/** The pages, and where each is embedded. */
const PAGES = { report: "../crates/regard-lens/src/report.html", serve: "../crates/regard-serve/src/server/page.html" };

const at = path => new URL(path, import.meta.url);

async function bundle(entry) {
  const result = await build({
    entryPoints: [at(entry).pathname],
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    write: false,
  });
  return result.outputFiles[0].text.trim();
}

async function page(name, embedded) {
  const [template, style, script] = [
    await readFile(at(`src/${name}.html`), "utf8"),
    await bundle(`src/${name}.css`),
    await bundle(`src/${name}.ts`),
  ];
  if (/<\/(script|style)/i.test(script + style)) throw new Error(`${name}: the bundle would end its own element`);
  // Functions as replacements: a string would have its $ read as patterns.
  const html = template.replace("/*style*/", () => style).replace("/*script*/", () => script);
  await writeFile(at(`dist/${name}.html`), html);
  if (existsSync(dirname(at(embedded).pathname))) await writeFile(at(embedded), html);
  console.log(`dist/${name}.html: ${(html.length / 1024).toFixed(1)} KiB`);
}

await mkdir(at("dist"), { recursive: true });
for (const [name, embedded] of Object.entries(PAGES)) await page(name, embedded);
