// The members of our own classes and interfaces whose names are shortened in the built files: those
// that the engine does not know too. What one file has to call in another stands in SHARED.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const SOURCES = ["frames.ts", "framed.ts", "link.ts", "socket.ts", "http", "guard"];
const SHARED = ["url", "protocols", "extensions", "plainsocket", "native"];
const NEWER = ["duplex"]; // the engine's, which TypeScript does not describe yet
const ENGINE = /^ +(?:readonly |get |set )*([A-Za-z_]\w*)\??[:(<]/gm; // a member in TypeScript's descriptions

function membersIn(path) {
  const names = [];
  const visit = (node) => {
    if (
      ts.isClassElement(node) || ts.isTypeElement(node) ||
      (ts.isParameter(node) && ts.isParameterPropertyDeclaration(node, node.parent))
    ) {
      if (node.name) names.push(node.name.text);
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true));
  return names;
}

/** A pattern of the names that may be shortened. */
export function ownNames() {
  const known = new Set([...SHARED, ...NEWER]);
  const lib = resolve(here, "node_modules/typescript/lib");
  for (const file of readdirSync(lib).filter((name) => /^lib\.(dom|es)[\w.]*\.d\.ts$/.test(name))) {
    for (const [, name] of readFileSync(resolve(lib, file), "utf8").matchAll(ENGINE)) known.add(name);
  }
  const files = SOURCES.flatMap((name) => {
    const path = resolve(here, "src", name);
    return name.endsWith(".ts") ? [path] : readdirSync(path).map((file) => resolve(path, file));
  });
  const own = new Set(files.flatMap(membersIn).filter((name) => !known.has(name)));
  return new RegExp(`^(?:${[...own].sort().join("|")})$`);
}
