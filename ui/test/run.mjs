// Bundles the tests and runs them, or those of files whose names have the first argument in them; more arguments go to node.
// `node test/run.mjs screenshots` makes the pictures of the docs instead.

import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const pictures = process.argv[2] === "screenshots";
const only = process.argv[2] ?? "";
const found = folder =>
  readdirSync(`test/${folder}`)
    .filter(name => name.endsWith(".test.ts") && `${folder}/${name}`.includes(only))
    .map(name => `test/${folder}/${name}`);
const entryPoints = pictures ? ["test/screenshots.ts"] : [...found("unit"), ...found("page")];
const outdir = "node_modules/.cache/regard-tests";
await build({
  entryPoints,
  bundle: true,
  platform: "node",
  format: "esm",
  outdir,
  outbase: "test",
  outExtension: { ".js": ".mjs" },
  packages: "external",
  sourcemap: "inline",
  logLevel: "warning",
});
const files = entryPoints.map(name => `${outdir}/${name.slice("test/".length).replace(/\.ts$/, ".mjs")}`);
const more = process.argv.slice(3);
const args = pictures
  ? [...files, ...more]
  : ["--enable-source-maps", "--test", "--test-concurrency=1", "--test-reporter=spec", ...more, ...files];
process.exit(spawnSync(process.execPath, args, { stdio: "inherit" }).status ?? 1);
