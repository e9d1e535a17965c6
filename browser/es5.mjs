// How files for old engines are built.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import ts from "typescript";

// esbuild lowers no classes and no `let`; TypeScript does, file by file, before esbuild joins them.
export const toES5 = {
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

// What an engine of Flash's time may lack is taken from old.ts, in place of the globals' names.
export const oldEngine = {
  inject: [fileURLToPath(new URL("src/flash/old.ts", import.meta.url))],
  define: {
    "Array.from": "$arrayFrom",
    "ArrayBuffer.isView": "$isView",
    "Number.MAX_SAFE_INTEGER": "9007199254740991",
    "Object.defineProperty": "$defineProperty",
    "Object.setPrototypeOf": "$setPrototypeOf",
  },
};
