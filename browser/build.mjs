// Builds the files of the browser half: node build.mjs [FOLDER]
// Without a folder they go where the Python package keeps them.

import { copyFile, readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2] ? resolve(process.argv[2]) : resolve(here, "../src/plainsocket/static");
const banner = "/* plainsocket, the plain WebSocket where networks break it; MIT licence */";

// What is built of what. A file for old engines is ES5, whatever its source: `es5`.
const FILES = [
];

// esbuild lowers no classes and no `let`; TypeScript does, file by file, before esbuild joins them.
const toES5 = {
  name: "es5",
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const { outputText } = ts.transpileModule(await readFile(path, "utf8"), {
        fileName: path,
        compilerOptions: { target: ts.ScriptTarget.ES5, module: ts.ModuleKind.ES2015, verbatimModuleSyntax: true },
      });
      return { contents: outputText, loader: "js" };
    });
  },
};

await Promise.all(
  FILES.map(({ name, source, format, es5 }) =>
    build({
      absWorkingDir: here,
      entryPoints: [source],
      outfile: resolve(folder, name),
      bundle: true,
      minify: true,
      format,
      target: es5 ? "es5" : "es2020",
      plugins: es5 ? [toES5] : [],
      banner: { js: banner },
      charset: "utf8",
      legalComments: "none",
      logLevel: "warning",
    }),
  ),
);
