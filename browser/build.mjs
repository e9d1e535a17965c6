// Builds the files of the browser half: node build.mjs [FOLDER]
// Without a folder they go where the Python package keeps them.

import { copyFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

import { oldEngine, toES5 } from "./es5.mjs";
import { ownNames } from "./names.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2] ? resolve(process.argv[2]) : resolve(here, "../src/plainsocket/static");
const banner = "/* plainsocket, MIT */";

// What is built of what. A file for old engines is ES5, whatever its source: `es5`.
// In the others our own names are shortened. One for engines of Flash's time brings along what those lack: `old`.
const FILES = [
  { name: "plainsocket.js", source: "src/loader.ts", format: "iife", es5: true },
  { name: "plainsocket-http.js", source: "src/http/classic.ts", format: "iife" },
  { name: "plainsocket-guard.js", source: "src/guard/classic.ts", format: "iife" },
  { name: "plainsocket.mjs", source: "src/module.ts", format: "esm" },
  { name: "plainsocket-upload.mjs", source: "src/http/lasting.ts", format: "esm" },
  { name: "plainsocket-flash.js", source: "src/flash/index.ts", format: "iife", es5: true, old: true },
];

// What another file imports when it needs it.
const onDemand = {
  name: "on demand",
  setup({ onResolve }) {
    onResolve({ filter: /\/lasting\.ts$/ }, ({ kind }) =>
      kind === "dynamic-import" ? { path: "./plainsocket-upload.mjs", external: true } : undefined,
    );
  },
};

const own = ownNames();

await Promise.all(
  FILES.map(({ name, source, format, es5, old }) =>
    build({
      absWorkingDir: here,
      entryPoints: [source],
      outfile: resolve(folder, name),
      bundle: true,
      minify: true,
      format,
      target: es5 ? "es5" : "es2020",
      ...(es5 ? { plugins: [toES5] } : { plugins: [onDemand], mangleProps: own }),
      ...(es5 && !old && { tsconfigRaw: {} }), // no room for "use strict"
      ...(old && oldEngine),
      banner: { js: banner },
      charset: "utf8",
      legalComments: "none",
      logLevel: "warning",
    }),
  ),
);
await copyFile(resolve(here, "src/plainsocket.d.mts"), resolve(folder, "plainsocket.d.mts"));
