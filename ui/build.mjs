// Bundles each page to one HTML file: `src/NAME.html` with its style and its script inside, as dist/NAME.html.

import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";

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

async function page(name) {
  const [template, style, script] = [await readFile(at(`src/${name}.html`), "utf8"), await bundle(`src/${name}.css`), await bundle(`src/${name}.ts`)];
  if (/<\/(script|style)/i.test(script + style)) throw new Error(`${name}: the bundle would end its own element`);
  // Functions as replacements: a string would have its $ read as patterns.
  const html = template.replace("/*style*/", () => style).replace("/*script*/", () => script);
  await writeFile(at(`dist/${name}.html`), html);
  console.log(`dist/${name}.html: ${(html.length / 1024).toFixed(1)} KiB`);
}

await mkdir(at("dist"), { recursive: true });
for (const name of ["report", "serve"]) await page(name);
