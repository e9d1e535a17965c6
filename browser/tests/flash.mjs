// The Flash carrier's own half of RFC 6455, in Node: node tests/flash.mjs HOST:PORT
// There a server echoes at /echo, speaking the subprotocol "chat"; /close closes as its query says.
// All is done twice, the second time without anything that came after ECMAScript 5.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parse } from "acorn";
import { build } from "esbuild";

import { oldEngine, toES5 } from "../es5.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const host = process.argv[2];

// -- the modules, as an engine sees them -----------------------------------------------------------

const nodePlayer = {
  name: "node-player",
  setup({ onResolve }) {
    onResolve({ filter: /\/player\.ts$/ }, () => ({ path: resolve(here, "flash/node-player.mjs") }));
  },
};

async function load(window) {
  globalThis.window = window;
  const outfile = resolve(here, `.flash-${process.pid}-${Math.random()}.mjs`);
  await build({
    entryPoints: [resolve(here, "flash/entry.ts")],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    plugins: [nodePlayer, toES5],
    ...oldEngine,
    logLevel: "warning",
  });
  try {
    return { ...(await import(pathToFileURL(outfile).href)), leave };
  } finally {
    await rm(outfile);
  }
}

globalThis.location = { protocol: "http:", host, hostname: host.split(":")[0], href: `http://${host}/` };
globalThis.self = globalThis;
let leave; // what the browser calls when the page goes
globalThis.addEventListener = (type, listener) => {
  assert.equal(type, "unload");
  leave = listener;
};
globalThis.document = {
  baseURI: location.href,
  cookie: "one=1; two=ü",
  createElement: () => ({
    set href(given) {
      this.whole = new URL(given, location.href).href;
    },
    get href() {
      return this.whole;
    },
  }),
};

// -- parts -----------------------------------------------------------------------------------------

function digests({ sha1, base64 }) {
  for (let size = 0; size < 200; size++) {
    const bytes = randomBytes(size);
    assert.equal(base64(bytes), bytes.toString("base64"));
    const text = bytes.toString("hex").slice(0, size);
    assert.equal(base64(sha1(text)), createHash("sha1").update(text).digest("base64"));
  }
}

function characters({ toCharacters, fromCharacters }) {
  const all = Uint8Array.from({ length: 20_000 }, (_, i) => i);
  const text = toCharacters(all);
  assert.match(text, /^[\u0100-\u01ff]{20000}$/);
  assert.deepEqual(Array.from(fromCharacters(text)), Array.from(all));
}

function places({ placeOf, request }) {
  const place = (secure, authority, host, port, resource) => ({ secure, authority, host, port, resource });
  assert.deepEqual(placeOf("ws://example.com"), place(false, "example.com", "example.com", 80, "/"));
  assert.deepEqual(placeOf("wss://example.com/a?b"), place(true, "example.com", "example.com", 443, "/a?b"));
  assert.deepEqual(placeOf("ws://[::1]:99?b=@:/"), place(false, "[::1]:99", "::1", 99, "/?b=@:/"));
  assert.deepEqual(placeOf("ws://me:secret@example.com:8/"), place(false, "example.com:8", "example.com", 8, "/"));
  const asked = request(placeOf("ws://example.com/a"), ["x", "y"], { key: "KEY", origin: "http://o", cookie: "a=b" });
  assert.equal(
    asked,
    "GET /a HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
      "Sec-WebSocket-Key: KEY\r\nOrigin: http://o\r\nSec-WebSocket-Protocol: x, y\r\nCookie: a=b\r\n\r\n",
  );
}

function answers({ AnswerReader, Bytes }) {
  const accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; // of RFC 6455 section 1.3
  const good = ["HTTP/1.1 101 Switching Protocols", "Upgrade: WebSocket", "connection: keep-alive, upgrade", accept];
  const read = (text, size = text.length) => {
    const reader = new AnswerReader("dGhlIHNhbXBsZSBub25jZQ==");
    for (let at = 0; at < text.length; at += size) {
      const answer = reader.push(new Bytes(Buffer.from(text.slice(at, at + size), "latin1")));
      if (answer !== undefined) return answer && [answer.protocol, Buffer.from(answer.rest).toString()];
    }
    return undefined;
  };
  const whole = `${good.join("\r\n")}\r\n\r\n`;
  for (let size = 1; size <= whole.length; size++) assert.deepEqual(read(whole, size), ["", ""]);
  assert.deepEqual(read(`${whole}more`), ["", "more"]);
  assert.deepEqual(read(`${good.join("\r\n")}\r\nSec-WebSocket-Protocol:chat \r\n\r\n`), ["chat", ""]);
  assert.equal(read(whole.slice(0, -1)), undefined);
  const bad = [
    whole.replace("101", "200"),
    whole.replace("1.1", "1.0"),
    whole.replace("101", "1011"),
    whole.replace("WebSocket", "websockets"),
    whole.replace("upgrade\r", "upgrades\r"),
    whole.replace("s3pP", "S3pP"),
    whole.replace(`${accept}\r\n`, ""),
    whole.replace(accept, `${accept}\r\n${accept}`),
    whole.replace(accept, `${accept}\r\nSec-WebSocket-Extensions: permessage-deflate`),
    whole.replace(accept, `${accept}\r\n folded`),
    whole.replace(accept, `${accept}\r\nno colon`),
    `HTTP/1.1 101 \r\nA: ${"a".repeat(20_000)}`,
    "x".repeat(20_000),
  ];
  for (const text of bad) for (const size of [1, 7, text.length]) assert.equal(read(text, size), null, text.slice(0, 300));
}

function texts({ TextEncoder, TextDecoder, Bytes }) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const encoder = new TextEncoder();
  const strict = new globalThis.TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (let start = 0; start < 0x110000; start += 0x800) {
    let text = "\ufeff";
    for (let code = start; code < start + 0x800; code += 7) text += String.fromCodePoint(code);
    const bytes = encoder.encode(text);
    assert.deepEqual(Buffer.from(bytes), Buffer.from(text)); // lone surrogates are U+FFFD in both
    assert.equal(decoder.decode(bytes), strict.decode(Buffer.from(text)));
  }
  const decode = (with_, bytes) => {
    try {
      return with_.decode(bytes);
    } catch {
      return null;
    }
  };
  for (let i = 0; i < 20_000; i++) {
    // Bytes around the bounds of the format, where a decoder would be wrong.
    const edges = [0, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff];
    const bytes = Array.from({ length: 1 + (i % 5) }, () => edges[Math.floor(Math.random() * edges.length)]);
    assert.equal(decode(decoder, new Bytes(bytes)), decode(strict, Uint8Array.from(bytes)), String(bytes));
  }
}

// -- over a real server, in pieces -----------------------------------------------------------------

function talk(WebSocket, path, protocols, { onopen, onmessage }) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(`ws://${host}${path}`, protocols);
    const seen = [];
    setTimeout(() => reject(new Error(`nothing more came after ${JSON.stringify(seen).slice(0, 500)}`)), 20_000).unref();
    ws.binaryType = "arraybuffer";
    ws.onopen = () => onopen?.(ws);
    ws.onerror = () => seen.push("error");
    ws.onmessage = ({ data }) => {
      seen.push(data);
      onmessage?.(ws, seen);
    };
    ws.addEventListener("close", ({ code, reason, wasClean }) => {
      seen.push([code, reason, wasClean]);
      resolve({ seen, ws });
    });
  });
}

async function conversations({ makeWebSocket, connect, player }) {
  const WebSocket = makeWebSocket(connect);
  assert.throws(() => new WebSocket("ws://x/#"), { name: "SyntaxError" });
  for (const pieces of [1, 3, 50, 1e9]) {
    player.chop(pieces);
    const sizes = [0, 1, 125, 126, 65535, 65536, ...(pieces > 50 ? [1 << 20] : [])];
    const messages = sizes.map((size) => "ä\0😀\ufeff€".repeat(size / 13 + 1).slice(0, size / 3));
    const { seen, ws } = await talk(WebSocket, "/echo", ["other", "chat"], {
      onopen: (ws) => {
        const before = player.writes;
        messages.forEach((message) => ws.send(message));
        assert.equal(player.writes - before, messages.length);
      },
      onmessage: (ws, seen) => seen.length === messages.length && ws.close(3001, "bye ☺"),
    });
    assert.deepEqual(seen.pop(), [3001, "", true]); // a reason is its sender's
    assert.ok(seen.length === messages.length && seen.every((message, i) => message === messages[i]));
    assert.deepEqual([ws.protocol, ws.readyState, ws.bufferedAmount], ["chat", 3, 0]);
    for (const [query, end] of [["code=4002&reason=so", [4002, "so", true]], ["code=1001", [1001, "", true]]]) {
      assert.deepEqual((await talk(WebSocket, `/close?${query}`, [], {})).seen, [end]);
    }
  }
  assert.deepEqual((await talk(WebSocket, "/echo", [], { onopen: () => leave() })).seen, [[1001, "", true]]);
  const failed = ["error", [1006, "", false]];
  assert.deepEqual((await talk(WebSocket, "/nothing", [], {})).seen, failed);
  assert.deepEqual((await talk(WebSocket, "/echo", ["other"], {})).seen, failed);
  assert.deepEqual((await talk(WebSocket, "/echo", [], { onopen: (ws) => ws.send("headers"), onmessage: (ws, [text]) => {
    assert.deepEqual(JSON.parse(text), [`http://${host}`, document.cookie]);
    ws.close();
  } })).seen.at(-1), [1005, "", true]);
}

async function binary({ makeWebSocket, connect, player }) {
  player.chop(1000);
  const all = Uint8Array.from({ length: 70_000 }, (_, i) => i);
  const { seen } = await talk(makeWebSocket(connect), "/echo", [], {
    onopen: (ws) => (ws.send(all.buffer), ws.send(all.subarray(5, 300))),
    onmessage: (ws, seen) => seen.length === 2 && ws.close(),
  });
  assert.deepEqual(new Uint8Array(seen[0]), all);
  assert.deepEqual(new Uint8Array(seen[1]), all.subarray(5, 300));
}

/** Where there is no typed array, a binary message is an array of numbers; none can be sent. */
async function binaryWithoutTypedArrays({ makeWebSocket, connect }) {
  const { seen } = await talk(makeWebSocket(connect), "/echo", [], {
    onopen: (ws) => ws.send("binary"),
    onmessage: (ws) => ws.close(),
  });
  assert.deepEqual(Array.from(seen[0]), Array.from({ length: 256 }, (_, i) => i));
}

// -- the built file --------------------------------------------------------------------------------

/** It is ECMAScript 5, and names no global that came later. */
async function builtFile() {
  const text = await readFile(resolve(here, "../../src/plainsocket/static/plainsocket-flash.js"), "utf8");
  const program = parse(text, { ecmaVersion: 5 });
  const declared = new Set(["arguments", "undefined"]);
  const used = new Set();
  (function walk(node, parent, key) {
    if (!node || typeof node !== "object") return;
    if (Array.isArray(node)) return node.forEach((child) => walk(child, parent, key));
    if (node.type === "Identifier") {
      const isName = (parent.type === "MemberExpression" && key === "property" && !parent.computed) || (parent.type === "Property" && key === "key");
      const isDeclared = ["VariableDeclarator", "FunctionDeclaration", "FunctionExpression", "CatchClause"].includes(parent.type) && key !== "init" && key !== "body";
      if (isDeclared) declared.add(node.name);
      else if (!isName) used.add(node.name);
      return;
    }
    for (const [name, child] of Object.entries(node)) walk(child, node, name);
  })(program);
  const globals = [...used].filter((name) => !declared.has(name)).sort();
  const old = ["self", "window", "document", "navigator", "location", "addEventListener", "setTimeout", "clearTimeout"];
  const es5 = ["Array", "Date", "Error", "Infinity", "Math", "Object", "String", "TypeError"];
  const ofBlobs = ["FileReader"]; // without them none is read
  assert.deepEqual(globals.filter((name) => ![...old, ...es5, ...ofBlobs].includes(name)), []);
  assert.doesNotMatch(text, /\beval\b|\bFunction\(|document\.write|setTimeout\("/);
}

await builtFile();
const everything = Object.getOwnPropertyNames(globalThis);
const modern = await load(Object.fromEntries(everything.map((name) => [name, globalThis[name]])));
const old = await load({ Object: { defineProperty: Object.defineProperty, create: Object.create, prototype: Object.prototype }, Array: {} });
assert.notEqual(old.Bytes, Uint8Array);
for (const modules of [modern, old]) {
  leave = modules.leave;
  for (const check of [digests, characters, places, answers, texts, conversations]) await check(modules);
}
await binary(modern);
await binaryWithoutTypedArrays(old);
console.log("all is well");
process.exit(0);
