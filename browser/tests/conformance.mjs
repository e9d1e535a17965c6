// The WebSocket interface, line by line, as code that runs in a page or a worker, on any WebSocket
// constructor: the engine's own, and ours on each carrier. All have to pass the same checks.

const PATIENCE = 15_000; // ms for one check
const all = [];

/**
 * Run every check, those of "secure" in pages by https only; returns [{ name, error }], error being
 * null where it passed.
 */
export async function run(WebSocket, base, only = "") {
  const results = [];
  const chosen = all.filter(({ name }) => name.includes(only) && (/^wss/.test(base) || !/^secure/.test(name)));
  // A few at a time: most of them wait for the network.
  const workers = Array.from({ length: 6 }, async () => {
    for (let next; (next = chosen.shift()); ) results.push(await runOne(next, WebSocket, base));
  });
  await Promise.all(workers);
  return results;
}

async function runOne({ name, body }, WebSocket, base) {
  const sockets = [];
  const t = new Tools(WebSocket, base, sockets);
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done in ${PATIENCE / 1000} s`)), PATIENCE);
  });
  try {
    await Promise.race([body(t), late]);
    return { name, error: null };
  } catch (error) {
    return { name, error: `${error?.message ?? error}` };
  } finally {
    clearTimeout(timer);
    for (const socket of sockets) socket.close();
  }
}

class Tools {
  constructor(WebSocket, base, sockets) {
    Object.assign(this, { WebSocket, base, sockets });
  }

  /** A new socket, closed when the check is over. */
  make(path = "/echo", ...protocols) {
    const url = /^\w+:/.test(path) ? path : this.base + path;
    const socket = new this.WebSocket(url, ...protocols);
    this.sockets.push(socket);
    return socket;
  }

  async open(path, ...protocols) {
    const socket = this.make(path, ...protocols);
    socket.binaryType = "arraybuffer";
    await opened(socket);
    return socket;
  }
}

function check(name, body) {
  all.push({ name, body });
}

// -- what checks say -----------------------------------------------------------------------------

function show(value) {
  if (value instanceof ArrayBuffer) return `ArrayBuffer [${new Uint8Array(value)}]`;
  return typeof value === "string" || Array.isArray(value) ? JSON.stringify(value).slice(0, 300) : String(value);
}

function same(actual, expected, what = "value") {
  const equal = Array.isArray(expected) ? JSON.stringify(actual) === JSON.stringify(expected) : Object.is(actual, expected);
  if (!equal) throw new Error(`${what}: ${show(actual)} instead of ${show(expected)}`);
}

function ok(condition, what) {
  if (!condition) throw new Error(what);
}

/** The action must throw a DOMException of that name, or the error class given. */
function throws(expected, action, what = String(action)) {
  let error;
  try {
    action();
  } catch (caught) {
    error = caught;
  }
  ok(error, `${what}: threw nothing`);
  if (typeof expected === "string") {
    ok(error instanceof DOMException, `${what}: threw ${error}, no DOMException`);
    same(error.name, expected, what);
  } else {
    ok(error instanceof expected, `${what}: threw ${error}`);
  }
}

// -- waiting -------------------------------------------------------------------------------------

function event(socket, type) {
  return new Promise((resolve) => socket.addEventListener(type, resolve, { once: true }));
}

function opened(socket) {
  return new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve, { once: true });
    socket.addEventListener("close", ({ code }) => reject(new Error(`closed with ${code} instead of open`)), { once: true });
  });
}

const task = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

async function message(socket) {
  const closed = event(socket, "close").then(({ code }) => {
    throw new Error(`closed with ${code} instead of a message`);
  });
  return (await Promise.race([event(socket, "message"), closed])).data;
}

/** The types of all events of a socket from now on. */
function logOf(socket) {
  const log = [];
  for (const type of ["open", "message", "error", "close"]) socket.addEventListener(type, () => log.push(type));
  return log;
}

/** A socket that fails: what comes, in order, and the close event. */
async function failure(socket) {
  const log = logOf(socket);
  const close = await Promise.race([event(socket, "close"), event(socket, "open")]);
  await task(20);
  same(log, ["error", "close"], "events");
  same(close.code, 1006, "code");
  same(close.reason, "", "reason");
  same(close.wasClean, false, "wasClean");
  same(socket.readyState, 3, "readyState");
}

let lastId = 0;
const newId = () => `${Date.now()}.${Math.random()}.${++lastId}`;

/** What the server was told by the close of the socket that was opened at /record?id. */
async function recorded(t, id) {
  const socket = await t.open(`/recorded?${id}`);
  return JSON.parse(await message(socket));
}

// -- the constructor -----------------------------------------------------------------------------

check("constructor: needs new and an argument", async ({ WebSocket, base }) => {
  throws(TypeError, () => WebSocket(`${base}/echo`));
  throws(TypeError, () => new WebSocket());
});

check("constructor: addresses that are none", async ({ WebSocket }) => {
  for (const url of ["ftp://localhost/", "mailto:me", "data:,", "ws://", "ws://localhost:99999/", "wss://[::1"]) {
    throws("SyntaxError", () => new WebSocket(url), url);
  }
});

check("constructor: a fragment, even an empty one", async ({ WebSocket, base }) => {
  for (const fragment of ["#", "#top", "?query#"]) throws("SyntaxError", () => new WebSocket(`${base}/echo${fragment}`), fragment);
});

check("constructor: the address is resolved and serialized", async (t) => {
  const host = new URL(t.base).host;
  const cases = [
    [`http://${host}/echo`, `ws://${host}/echo`],
    [`HTTP://${host}/a b?c d`, `ws://${host}/a%20b?c%20d`],
    [`ws://${host}`, `ws://${host}/`],
    ["ws://LOCALHOST:80/x/../y", "ws://localhost/y"],
    ["wss://localhost:443", "wss://localhost/"],
    ["https://localhost:444/", "wss://localhost:444/"],
    [` \tws://${host}/%20 `, `ws://${host}/%20`],
    [`ws://${host}/\ud800ä`, `ws://${host}/%EF%BF%BD%C3%A4`],
    [{ toString: () => `ws://${host}/object` }, `ws://${host}/object`],
  ];
  for (const [given, expected] of cases) {
    const socket = new t.WebSocket(given);
    t.sockets.push(socket);
    same(socket.url, expected, `url of ${show(given)}`);
    socket.close();
  }
});

check("constructor: the address is relative to the page", async (t) => {
  const base = globalThis.document ? document.baseURI : location.href;
  for (const given of ["/echo", "echo", "./x/../echo", "?q", "//localhost/x"]) {
    const expected = new URL(given, base);
    expected.protocol = expected.protocol.replace("http", "ws");
    same(t.make.call({ ...t, base: "", sockets: t.sockets }, given).url, expected.href, `url of ${show(given)}`);
  }
});

check("constructor: a user's name in the address is kept", async (t) => {
  same(t.make(t.base.replace("//", "//user:pass@")).url, `${t.base.replace("//", "//user:pass@")}/`);
});

check("constructor: subprotocols that are none", async (t) => {
  const bad = ["", " ", "a b", "a,b", "\t", "a/b", "a\\b", "(a)", "<a>", "a@b", "a:b", "a;b", '"a"', "[a]", "a?b", "a=b", "{a}", "\0", "\x7f", "ä", "\u20ac", "a\nb"];
  for (const name of bad) {
    throws("SyntaxError", () => t.make("/echo", name), show(name));
    throws("SyntaxError", () => t.make("/echo", ["good", name]), show(["good", name]));
  }
});

check("constructor: subprotocols given twice", async (t) => {
  throws("SyntaxError", () => t.make("/echo", ["a", "a"]));
  throws("SyntaxError", () => t.make("/echo", ["a", "b", "a"]));
});

check("constructor: subprotocols that differ only in case", async (t) => {
  throws("SyntaxError", () => t.make("/echo", ["chat", "CHAT"]));
});

check("constructor: subprotocols that look like names of objects", async (t) => {
  t.make("/echo", ["constructor", "__proto__", "toString"]);
  t.make("/echo", "!#$%&'*+-.^_`|~09AZaz");
});

check("constructor: kinds of second argument", async (t) => {
  same(await (await t.open("/protocols", undefined)).protocol, "");
  same((await t.open("/protocols", [])).protocol, "");
  same((await t.open("/select", "one")).protocol, "one");
  same((await t.open("/select", ["one", "two"])).protocol, "one");
  same((await t.open("/select", new Set(["two", "one"]))).protocol, "two");
  same((await t.open("/select", [{ toString: () => "three" }, 4])).protocol, "three");
  throws(TypeError, () => t.make("/echo", [Symbol("a")]));
  throws(TypeError, () => t.make("/echo", Symbol("a")));
});

check("constructor: null as the second argument", async (t) => {
  same((await t.open("/select", null)).protocol, "null");
});

check("constructor: options as the second argument", async (t) => {
  same((await t.open("/select", { protocols: "one" })).protocol, "one");
  same((await t.open("/select", { protocols: ["two", "one"] })).protocol, "two");
  same((await t.open("/select", { protocols: undefined })).protocol, "");
  same((await t.open("/select", {})).protocol, "");
  throws("SyntaxError", () => t.make("/echo", { protocols: "" }));
  throws("SyntaxError", () => t.make("/echo", { protocols: ["a", "a"] }));
});

check("constructor: the order of conversions and checks", async ({ WebSocket }) => {
  const log = [];
  const url = { toString: () => log.push("url") && "ftp://x" };
  const protocols = { [Symbol.iterator]: () => log.push("protocols") && [" "][Symbol.iterator]() };
  throws("SyntaxError", () => new WebSocket(url, protocols));
  same(log, ["url", "protocols"]);
  const thrown = new RangeError("mine");
  let caught;
  try {
    new WebSocket({ toString() { throw thrown; } });
  } catch (error) {
    caught = error;
  }
  same(caught, thrown);
  throws(TypeError, () => new WebSocket(Symbol("a")));
});

check("constructor: never throws for the network's sake", async (t) => {
  await failure(t.make(t.base.replace("127.0.0.1", "127.0.0.2"))); // nobody listens there
});

check("constructor: never throws for a port that is not allowed", async (t) => {
  const late = task(12_000).then(() => ok(false, "no event came")); // Chromium takes seconds after other failures
  await Promise.race([Promise.all([25, 6000].map((port) => failure(t.make(`ws://127.0.0.1:${port}/`)))), late]);
});

check("constructor: can be extended", async (t) => {
  class Mine extends t.WebSocket {
    constructor() {
      super(`${t.base}/echo`);
      this.own = 1;
    }
    double(text) {
      this.send(text + text);
    }
    get readyStateName() {
      return ["connecting", "open"][this.readyState];
    }
  }
  const socket = new Mine();
  t.sockets.push(socket);
  ok(socket instanceof Mine && socket instanceof t.WebSocket && socket instanceof EventTarget, "instanceof");
  same(Object.getPrototypeOf(socket), Mine.prototype);
  same(socket.readyStateName, "connecting");
  await opened(socket);
  same(socket.readyStateName, "open");
  socket.double("ab");
  same(await message(socket), "abab");
});

// -- a page by https -----------------------------------------------------------------------------

check("secure: ws: to another machine", async ({ WebSocket }) => {
  const hosts = ["192.0.2.1", "example.invalid", "localhost.example.invalid", "127.0.0.1.example.invalid", "notlocalhost", "203.0.113.127"];
  for (const host of hosts) {
    for (const url of [`ws://${host}/`, `WS://${host}:8087/x`, `http://${host}/`]) throws("SecurityError", () => new WebSocket(url), url);
  }
});

check("secure: this machine needs no wss:", async (t) => {
  // Never SecurityError: what does not leave the machine counts as secure. Nobody listens there.
  for (const host of ["127.0.0.1", "127.8.8.8", "[::1]", "localhost", "any.localhost"]) {
    await failure(t.make(`ws://${host}:1/`));
  }
});

check("secure: wss: and https: are the same", async (t) => {
  const url = `${t.base}/echo`;
  for (const given of [url, url.replace("wss", "https"), "/echo", url.slice("wss:".length)]) {
    const socket = new t.WebSocket(given);
    t.sockets.push(socket);
    same(socket.url, url);
    await opened(socket);
    socket.send("ä");
    const event = await new Promise((resolve) => (socket.onmessage = resolve));
    same([event.data, event.origin], ["ä", t.base]);
  }
});

// -- the shape -----------------------------------------------------------------------------------

/** All that can be seen of the interface without an object of it, as text. */
export function shapeOf(WebSocket) {
  const lines = [];
  const described = (owner, label) => {
    for (const key of Reflect.ownKeys(owner)) {
      const { value, get, set, ...flags } = Object.getOwnPropertyDescriptor(owner, key);
      const shown = typeof value === "function" ? `function ${value.name}/${value.length}` : String(typeof value === "object" ? "object" : value);
      const accessors = [get, set].map((f) => f && `${f.name}/${f.length}/${"prototype" in f}`);
      lines.push(`${label}.${String(key)}: ${get || set ? accessors : shown} ${JSON.stringify(flags)}`);
      if (typeof value === "function" && key !== "constructor") lines.push(`${label}.${String(key)} is a constructor: ${"prototype" in value}`);
    }
  };
  described(WebSocket, "WebSocket");
  described(WebSocket.prototype, "prototype");
  return lines.filter((line) => !/^WebSocket\.(arguments|caller):/.test(line)).sort();
}

check("shape: members", async ({ WebSocket }) => {
  const prototype = WebSocket.prototype;
  const own = (name) => Object.getOwnPropertyDescriptor(prototype, name);
  for (const name of ["url", "readyState", "bufferedAmount", "extensions", "protocol", "binaryType", "onopen", "onmessage", "onerror", "onclose"]) {
    const { get, set, enumerable, configurable } = own(name);
    const writable = /^on|^binary/.test(name);
    same([typeof get, typeof set, enumerable, configurable], ["function", writable ? "function" : "undefined", true, true], name);
    same(get.name, `get ${name}`);
    same(get.length, 0);
    if (writable) same(set.name, `set ${name}`);
    ok(!("prototype" in get), `the getter of ${name} is a constructor`);
  }
  for (const [name, length] of [["send", 1], ["close", 0]]) {
    const { value, writable, enumerable, configurable } = own(name);
    same([writable, enumerable, configurable], [true, true, true], name);
    same([value.name, value.length, "prototype" in value], [name, length, false], name);
  }
  ["CONNECTING", "OPEN", "CLOSING", "CLOSED"].forEach((name, number) => {
    for (const owner of [WebSocket, prototype]) {
      const { value, writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(owner, name);
      same([value, writable, enumerable, configurable], [number, false, true, false], name);
    }
  });
  same(own(Symbol.toStringTag).value, "WebSocket");
  same([own(Symbol.toStringTag).writable, own(Symbol.toStringTag).enumerable, own(Symbol.toStringTag).configurable], [false, false, true]);
  same(own("constructor").value, WebSocket);
  same([WebSocket.name, WebSocket.length], ["WebSocket", 1]);
  same(Object.getOwnPropertyDescriptor(WebSocket, "prototype").writable, false);
  same(Object.getPrototypeOf(WebSocket), EventTarget);
  same(Object.getPrototypeOf(prototype), EventTarget.prototype);
});

check("shape: an object has nothing of its own", async (t) => {
  const socket = t.make();
  socket.onopen = () => {};
  same(Reflect.ownKeys(socket), []);
  same(Object.prototype.toString.call(socket), "[object WebSocket]");
  same(Object.keys(socket), []);
  const names = [];
  for (const name in socket) names.push(name);
  for (const name of ["url", "readyState", "onopen", "send", "close", "OPEN", "addEventListener"]) ok(names.includes(name), `${name} is not enumerated`);
  same([socket.CONNECTING, socket.OPEN, socket.CLOSING, socket.CLOSED], [0, 1, 2, 3]);
});

check("shape: members want a WebSocket", async ({ WebSocket }) => {
  const prototype = WebSocket.prototype;
  for (const name of ["url", "readyState", "bufferedAmount", "extensions", "protocol", "binaryType", "onopen", "onmessage"]) {
    throws(TypeError, () => prototype[name], name);
    throws(TypeError, () => Reflect.get(prototype, name, {}), name);
    throws(TypeError, () => Reflect.get(prototype, name, new EventTarget()), name);
  }
  throws(TypeError, () => prototype.send("x"));
  throws(TypeError, () => prototype.close());
  throws(TypeError, () => prototype.send.call({}, "x"));
  throws(TypeError, () => (prototype.onopen = null));
});

check("shape: attributes that are read-only", async (t) => {
  const socket = t.make();
  for (const name of ["url", "readyState", "bufferedAmount", "extensions", "protocol", "OPEN"]) {
    const before = socket[name];
    throws(TypeError, () => {
      "use strict";
      socket[name] = "other";
    }, name);
    same(socket[name], before, name);
  }
});

check("shape: attributes of a new object", async (t) => {
  const socket = t.make("/select", ["one"]);
  same([socket.readyState, socket.bufferedAmount, socket.extensions, socket.protocol, socket.binaryType], [0, 0, "", "", "blob"]);
  same([socket.onopen, socket.onmessage, socket.onerror, socket.onclose], [null, null, null, null]);
  await opened(socket);
  same([socket.readyState, socket.bufferedAmount, socket.extensions, socket.protocol, socket.binaryType], [1, 0, "", "one", "blob"]);
});

// -- on… -----------------------------------------------------------------------------------------

check("handlers: what they may be", async (t) => {
  const socket = t.make();
  for (const value of [undefined, null, 0, 1, "code", true, Symbol("s")]) {
    socket.onopen = () => {};
    socket.onopen = value;
    same(socket.onopen, null, String(value));
  }
  const object = {};
  socket.onopen = object;
  same(socket.onopen, object);
  const f = () => {};
  socket.onopen = f;
  same(socket.onopen, f);
  socket.onopen = { handleEvent() { throw new Error("called"); } };
  await opened(socket);
});

check("handlers: their place is that of the first set", async (t) => {
  const socket = t.make();
  const log = [];
  socket.onopen = () => log.push("old");
  socket.addEventListener("open", () => log.push("listener"));
  socket.onopen = function (event) {
    log.push("new", this === socket, event.currentTarget === socket, arguments.length);
  };
  await opened(socket);
  await task();
  same(log, ["new", true, true, 1, "listener"]);
});

check("handlers: null gives the place up", async (t) => {
  const socket = t.make();
  const log = [];
  socket.onopen = () => log.push("first");
  socket.addEventListener("open", () => log.push("listener"));
  socket.onopen = null;
  socket.onopen = () => log.push("second");
  await opened(socket);
  await task();
  same(log, ["listener", "second"]);
});

check("handlers: are set on another object by themselves", async (t) => {
  const [a, b] = [t.make(), t.make()];
  a.onopen = () => {};
  same(b.onopen, null);
});

check("handlers: an exception goes to the page and nowhere else", async (t) => {
  const socket = await t.open();
  const reported = new Promise((resolve) => {
    const onError = (event) => {
      event.preventDefault();
      globalThis.removeEventListener("error", onError);
      resolve(event.message);
    };
    globalThis.addEventListener("error", onError);
  });
  let next = 0;
  socket.addEventListener("message", () => next++);
  socket.onmessage = () => {
    throw new Error("of the conformance suite");
  };
  socket.send("x");
  ok((await reported).includes("of the conformance suite"), "reported something else");
  await task();
  same(next, 1);
  same(socket.readyState, 1);
});

// -- events --------------------------------------------------------------------------------------

check("events: kinds and attributes", async (t) => {
  const socket = t.make("/echo?x=1");
  const events = [];
  for (const type of ["open", "message", "close"]) socket.addEventListener(type, (event) => events.push(event));
  await opened(socket);
  socket.send("x");
  await message(socket);
  socket.close(1000, "bye");
  await event(socket, "close");
  same(events.map(({ type }) => type), ["open", "message", "close"]);
  same(events.map(({ constructor }) => constructor.name), ["Event", "MessageEvent", "CloseEvent"]);
  ok(events[1] instanceof MessageEvent && events[2] instanceof CloseEvent, "instanceof");
  for (const { bubbles, cancelable, composed, defaultPrevented, target } of events) {
    same([bubbles, cancelable, composed, defaultPrevented], [false, false, false, false]);
    same(target, socket);
  }
  same([events[1].data, events[1].origin, events[1].lastEventId, events[1].source, events[1].ports.length], ["x", t.base, "", null, 0]);
  same([events[2].code, events[2].wasClean], [1000, true]);
});

check("events: none from within the constructor or close()", async (t) => {
  let inside = true;
  const log = [];
  const socket = t.make();
  for (const type of ["open", "error", "close"]) socket.addEventListener(type, () => log.push([type, inside]));
  const refused = t.make("ws://127.0.0.1:1/");
  refused.onerror = () => log.push(["refused", inside]);
  socket.close();
  same(socket.readyState, 2);
  await null;
  same(log, []);
  inside = false;
  await event(socket, "close");
});

check("events: one task for each", async (t) => {
  const socket = await t.open("/burst?n=20");
  const log = [];
  socket.onmessage = ({ data }) => {
    log.push(data);
    Promise.resolve().then(() => log.push("micro")).then(() => log.push("micro"));
  };
  socket.send("go");
  while (log.length < 60) await task(5);
  same(log, Array.from({ length: 20 }, (_, n) => [String(n), "micro", "micro"]).flat());
});

check("events: a failure", async (t) => {
  const socket = t.make("/refuse");
  const states = [];
  const order = [];
  socket.onerror = (event) => {
    states.push(socket.readyState);
    order.push(event.constructor.name);
  };
  socket.onclose = () => states.push(socket.readyState);
  await failure(socket);
  same(states, [3, 3]);
  same(order, ["Event"]);
});

check("events: a server that goes without a word", async (t) => {
  const socket = await t.open("/vanish");
  const log = logOf(socket);
  socket.send("now");
  const close = await event(socket, "close");
  await task(20);
  // No error: the connection is lost, but nobody failed it.
  same(log, ["close"]);
  same([close.code, close.reason, close.wasClean, socket.readyState], [1006, "", false, 3]);
});

check("events: no error at a clean close", async (t) => {
  const socket = await t.open();
  const log = logOf(socket);
  socket.close();
  await event(socket, "close");
  await task(20);
  same(log, ["close"]);
});

check("events: close by the server", async (t) => {
  for (const [code, reason] of [[1000, ""], [1000, "ü".repeat(61)], [1001, "away"], [1008, ""], [1011, "error"], [3000, "x"], [4999, "own"]]) {
    const socket = await t.open(`/close?code=${code}&reason=${encodeURIComponent(reason)}`);
    const log = logOf(socket);
    socket.send("now");
    const close = await event(socket, "close");
    same([close.code, close.reason, close.wasClean, socket.readyState], [code, reason, true, 3]);
    same(log, ["close"]);
  }
});

check("events: messages before a close all come", async (t) => {
  const socket = await t.open("/burst?n=200&close=1");
  const got = [];
  socket.onmessage = ({ data }) => got.push(data);
  socket.send("go");
  const { code, wasClean } = await event(socket, "close");
  same([got.length, got[199], code, wasClean], [200, "199", 1000, true]);
});

check("events: no message after close() was called", async (t) => {
  const socket = await t.open("/burst?n=50");
  let count = 0;
  socket.onmessage = () => {
    if (++count === 3) socket.close();
  };
  socket.send("go");
  const { code, wasClean } = await event(socket, "close");
  same([count, code, wasClean], [3, 1005, true]);
});

check("events: a listener may add and remove listeners", async (t) => {
  const socket = await t.open();
  const log = [];
  const once = () => {
    log.push("once");
    socket.removeEventListener("message", once);
    socket.addEventListener("message", () => log.push("later"));
  };
  socket.addEventListener("message", once);
  socket.send("1");
  await message(socket);
  socket.send("2");
  await message(socket);
  same(log, ["once", "later"]);
});

// -- send ----------------------------------------------------------------------------------------

check("send: before the opening", async (t) => {
  const socket = t.make();
  throws("InvalidStateError", () => socket.send("x"));
  throws("InvalidStateError", () => socket.send(new Blob(["x"])));
  throws(TypeError, () => socket.send());
  throws(TypeError, () => socket.send(Symbol("x")));
  same(socket.bufferedAmount, 0);
  await opened(socket);
});

check("send: after the end", async (t) => {
  const socket = await t.open();
  socket.close();
  same(socket.send("12345"), undefined);
  same(socket.bufferedAmount, 5);
  socket.send(new Uint8Array(3));
  same(socket.bufferedAmount, 8);
  await event(socket, "close");
  same(socket.bufferedAmount, 8);
  socket.send("ä");
  same(socket.bufferedAmount, 10);
  socket.send(new Blob(["1234567"]));
  same(socket.bufferedAmount, 17);
  await task(30);
  same(socket.bufferedAmount, 17);
  throws(TypeError, () => socket.send());
});

check("send: what is no text becomes text", async (t) => {
  const socket = await t.open();
  const cases = [[null, "null"], [undefined, "undefined"], [7, "7"], [true, "true"], [{}, "[object Object]"], [[1, 2], "1,2"], [{ toString: () => "own" }, "own"], [new Date(NaN), "Invalid Date"], [10n, "10"]];
  for (const [given, expected] of cases) {
    socket.send(given);
    same(await message(socket), expected, `send(${typeof given})`);
  }
});

check("send: text", async (t) => {
  const socket = await t.open();
  const cases = [["", ""], ["\0", "\0"], ["a\ud800b", "a\ufffdb"], ["\udc00", "\ufffd"], ["\ud83d\ude00", "😀"], ["\ufeffBOM", "\ufeffBOM"], ["ä€😀\r\n\u2028", "ä€😀\r\n\u2028"], ["x".repeat(125), "x".repeat(125)], ["x".repeat(126), "x".repeat(126)], ["x".repeat(65535), "x".repeat(65535)], ["ü".repeat(40000), "ü".repeat(40000)]];
  for (const [given, expected] of cases) {
    socket.send(given);
    const got = await message(socket);
    ok(got === expected, `text of ${given.length} came back as ${show(got)}`);
  }
});

check("send: all planes of Unicode", async (t) => {
  const socket = await t.open();
  let text = "";
  for (let plane = 0; plane <= 16; plane++) text += String.fromCodePoint(plane * 0x10000 + 0x41, plane * 0x10000 + 0xfffd);
  socket.send(text);
  same(await message(socket), text);
});

check("send: binary", async (t) => {
  const socket = await t.open();
  const bytes = Uint8Array.from({ length: 256 }, (_, n) => n);
  const cases = [
    [bytes.buffer, bytes],
    [bytes, bytes],
    [bytes.subarray(3, 7), [3, 4, 5, 6]],
    [new Uint16Array(bytes.buffer, 2, 2), [2, 3, 4, 5]],
    [new DataView(bytes.buffer, 250), [250, 251, 252, 253, 254, 255]],
    [new Float64Array(1), [0, 0, 0, 0, 0, 0, 0, 0]],
    [new Uint8Array(), []],
    [new ArrayBuffer(0), []],
    [new Uint8ClampedArray([300]), [255]],
  ];
  for (const [given, expected] of cases) {
    socket.send(given);
    const got = await message(socket);
    ok(got instanceof ArrayBuffer, `${given.constructor.name} came back as ${show(got)}`);
    same([...new Uint8Array(got)], [...expected], given.constructor.name);
  }
});

check("send: a megabyte", async (t) => {
  const socket = await t.open();
  const bytes = new Uint8Array(1 << 20);
  for (let i = 0; i < bytes.length; i += 65536) crypto.getRandomValues(bytes.subarray(i, i + 65536));
  socket.send(bytes);
  const got = new Uint8Array(await message(socket));
  same(got.length, bytes.length);
  ok(got.every((byte, i) => byte === bytes[i]), "differs");
  socket.send("x".repeat(1 << 20));
  same((await message(socket)).length, 1 << 20);
});

check("send: data is copied at the call", async (t) => {
  const socket = await t.open();
  const bytes = new Uint8Array([1, 2, 3]);
  socket.send(bytes);
  socket.send(bytes.buffer);
  bytes.fill(9);
  same([...new Uint8Array(await message(socket))], [1, 2, 3]);
  same([...new Uint8Array(await message(socket))], [1, 2, 3]);
});

check("send: data is copied at the call, also behind a blob that is being read", async (t) => {
  const socket = await t.open();
  const bytes = new Uint8Array(200000).fill(1);
  socket.send(new Blob(["first"]));
  socket.send(bytes);
  bytes.fill(2);
  socket.send(bytes.buffer);
  bytes.fill(3);
  same((await message(socket)).byteLength, 5);
  for (const value of [1, 2]) {
    const got = new Uint8Array(await message(socket));
    ok(got.length === bytes.length && got.every((byte) => byte === value), `${value} differs`);
  }
});

check("send: blobs stay in order", async (t) => {
  const socket = await t.open();
  const got = [];
  socket.onmessage = ({ data }) => got.push(typeof data === "string" ? data : new TextDecoder().decode(data));
  socket.send("1");
  socket.send(new Blob(["2".repeat(100000)]));
  socket.send("3");
  socket.send(new Blob(["4"]));
  socket.send(new Blob([]));
  socket.send(new Uint8Array([53]));
  socket.send(new File(["6"], "name"));
  socket.send("7");
  socket.send("quit");
  const { code } = await event(socket, "close");
  same(code, 1000);
  same(got.map((text) => text.slice(0, 3)), ["1", "222", "3", "4", "", "5", "6", "7"]);
  same(got[1].length, 100000);
});

check("send: a blob before close() is still sent", async (t) => {
  const id = newId();
  const socket = await t.open(`/record?${id}`);
  socket.send(new Blob(["x".repeat(50000)]));
  socket.send("last");
  socket.close(3001, "after");
  same((await event(socket, "close")).code, 3001);
  same(await recorded(t, id), [50000, 4, "close 3001 after"]);
});

check("send: bufferedAmount", async (t) => {
  const socket = await t.open();
  same(socket.bufferedAmount, 0);
  socket.send("abc");
  const text = socket.bufferedAmount;
  socket.send("ä€😀");
  const more = socket.bufferedAmount;
  socket.send(new Uint8Array(10));
  socket.send(new Blob(["12345"]));
  const all = socket.bufferedAmount;
  same([text, more, all], [3, 12, 27]);
  const until = Date.now() + 20;
  while (Date.now() < until) same(socket.bufferedAmount, 27, "within a task");
  for (let n = 0; n < 4; n++) await message(socket);
  while (socket.bufferedAmount) await task(5);
});

check("send: many in one task come in order", async (t) => {
  const socket = await t.open();
  const got = [];
  socket.onmessage = ({ data }) => got.push(data);
  for (let n = 0; n < 2000; n++) socket.send(String(n));
  while (got.length < 2000) await task(10);
  ok(got.every((text, n) => text === String(n)), "out of order");
});

// -- close ---------------------------------------------------------------------------------------

check("close: codes that may not be given", async (t) => {
  const open = await t.open();
  const connecting = t.make();
  const closed = await t.open();
  closed.close();
  await event(closed, "close");
  for (const socket of [open, connecting, closed]) {
    const state = socket.readyState;
    for (const code of [0, 500, 999, NaN, "string", null, 1001, 1005, 1006, 1015, 2999, 5000, 65535, 65536 + 1000, -1, Infinity, {}, [], true, 999.4]) {
      throws("InvalidAccessError", () => socket.close(code), `close(${show(code)})`);
    }
    throws(TypeError, () => socket.close(Symbol("s")));
    throws(TypeError, () => socket.close(10n));
    throws("SyntaxError", () => socket.close(1000, "x".repeat(124)));
    throws("SyntaxError", () => socket.close(3000, "\ud800".repeat(42)));
    throws("InvalidAccessError", () => socket.close(500, "x".repeat(124)));
    same(socket.readyState, state);
  }
});

check("close: codes and reasons reach the server and the event", async (t) => {
  const cases = [
    [[1000], 1000, ""],
    [[3000, "x"], 3000, "x"],
    [[4999, "ä".repeat(61)], 4999, "ä".repeat(61)],
    [["1000"], 1000, ""],
    [[1000.4], 1000, ""],
    [[1000, undefined], 1000, ""],
    [[1000, null], 1000, "null"],
    [[1000, 5], 1000, "5"],
    [[3000, "\ud800"], 3000, "\ufffd"],
    [[{ valueOf: () => 4000 }], 4000, ""],
  ];
  for (const [args, code, reason] of cases) {
    const id = newId();
    const socket = await t.open(`/record?${id}`);
    same(socket.close(...args), undefined);
    same(socket.readyState, 2);
    const close = await event(socket, "close");
    // The event's reason is the server's, which gives none of its own in reply.
    same([close.code, close.reason, close.wasClean, socket.readyState], [code, "", true, 3], `close(${show(args)})`);
    same(await recorded(t, id), [`close ${code} ${reason}`]);
  }
});

check("close: a code is rounded", async (t) => {
  for (const [given, code] of [[999.6, 1000], [3000.5, 3000], [3001.5, 3002]]) {
    const socket = await t.open();
    socket.close(given);
    same((await event(socket, "close")).code, code, `close(${given})`);
  }
});

check("close: without a code", async (t) => {
  for (const args of [[], [undefined]]) {
    const id = newId();
    const socket = await t.open(`/record?${id}`);
    socket.close(...args);
    const close = await event(socket, "close");
    same([close.code, close.reason, close.wasClean], [1005, "", true]);
    same(await recorded(t, id), ["close 1005 "]);
  }
});

check("close: with a reason only, which goes nowhere", async (t) => {
  const id = newId();
  const socket = await t.open(`/record?${id}`);
  throws("SyntaxError", () => socket.close(undefined, "ä".repeat(62)));
  socket.close(undefined, "why");
  const close = await event(socket, "close");
  same([close.code, close.reason, close.wasClean], [1005, "", true]);
  same(await recorded(t, id), ["close 1005 "]);
});

check("close: what was sent before it arrives", async (t) => {
  const id = newId();
  const socket = await t.open(`/record?${id}`);
  for (let n = 0; n < 300; n++) socket.send("x".repeat(1000));
  socket.close();
  same((await event(socket, "close")).wasClean, true);
  const seen = await recorded(t, id);
  same([seen.length, seen[0], seen[299], seen[300]], [301, 1000, 1000, "close 1005 "]);
});

check("close: while connecting", async (t) => {
  for (const path of ["/echo", "/slow"]) {
    const socket = t.make(path);
    const failed = failure(socket);
    socket.close(3000, "never mind");
    same(socket.readyState, 2);
    socket.close();
    await failed;
  }
});

check("close: more than once", async (t) => {
  const socket = await t.open();
  const log = logOf(socket);
  socket.close(3000, "first");
  socket.close(3001, "second");
  socket.close();
  same((await event(socket, "close")).code, 3000);
  socket.close(3002);
  await task(20);
  same(log, ["close"]);
  same(socket.readyState, 3);
});

check("close: in a message's listener", async (t) => {
  const socket = await t.open();
  socket.onmessage = () => socket.close(4000);
  socket.send("x");
  same((await event(socket, "close")).code, 4000);
});

// -- negotiation ---------------------------------------------------------------------------------

check("subprotocol: the one that the server takes", async (t) => {
  const socket = t.make("/select", ["one", "two", "three"]);
  same(socket.protocol, "");
  await opened(socket);
  same(socket.protocol, "one");
  same((await t.open("/select?two", ["one", "two"])).protocol, "two");
  socket.close();
  await event(socket, "close");
  same(socket.protocol, "one");
});

check("subprotocol: one that was not asked for", async (t) => {
  await failure(t.make("/force?other", "one"));
});

check("subprotocol: one in another case", async (t) => {
  await failure(t.make("/force?ONE", "one"));
});

check("subprotocol: none where one was asked for", async (t) => {
  await failure(t.make("/echo", "one"));
});

check("binaryType: what it may be", async (t) => {
  const socket = t.make();
  for (const [given, expected] of [["arraybuffer", "arraybuffer"], ["Blob", "arraybuffer"], ["", "arraybuffer"], ["blob", "blob"], ["notBlobOrArrayBuffer", "blob"], [null, "blob"], [undefined, "blob"], [new String("arraybuffer"), "arraybuffer"]]) {
    socket.binaryType = given;
    same(socket.binaryType, expected, `binaryType = ${show(given)}`);
  }
  throws(TypeError, () => (socket.binaryType = Symbol("s")));
});

check("binaryType: applies when the event comes", async (t) => {
  const socket = t.make("/echo");
  await opened(socket);
  socket.send(new Uint8Array([1, 2, 3]));
  const blob = await message(socket);
  ok(blob instanceof Blob, "no Blob by default");
  same([blob.size, blob.type], [3, ""]);
  same([...new Uint8Array(await blob.arrayBuffer())], [1, 2, 3]);
  const kinds = [];
  socket.onmessage = ({ data }) => {
    kinds.push(data.constructor.name);
    socket.binaryType = kinds.length % 2 ? "arraybuffer" : "blob";
  };
  for (let n = 0; n < 4; n++) socket.send(new Uint8Array(1));
  while (kinds.length < 4) await task(5);
  same(kinds, ["Blob", "ArrayBuffer", "Blob", "ArrayBuffer"]);
});

check("binaryType: an ArrayBuffer is the message and nothing else", async (t) => {
  const socket = await t.open();
  for (let n = 0; n < 50; n++) socket.send(new Uint8Array(n));
  for (let n = 0; n < 50; n++) same((await message(socket)).byteLength, n);
});

check("request: what the server sees", async (t) => {
  const socket = await t.open("/headers");
  const headers = JSON.parse(await message(socket));
  same(headers.origin, location.origin, "Origin");
  same(headers.referer, undefined, "Referer");
});

check("request: a redirect is not followed", async (t) => {
  await failure(t.make("/redirect"));
});

check("request: cookies are sent and set, HttpOnly ones too", async (t) => {
  const value = newId();
  await t.open(`/cookie?${value}`);
  const socket = await t.open("/headers");
  ok(JSON.parse(await message(socket)).cookie.includes(value), "the cookie did not come back");
  if (globalThis.document) ok(!document.cookie.includes(value), "the page can see the cookie");
});

check("many: 25 sockets at once, all echoing", async (t) => {
  const sockets = Array.from({ length: 25 }, () => t.make());
  await Promise.all(sockets.map(opened));
  sockets.forEach((socket, n) => socket.send(`hello ${n}`));
  same(await Promise.all(sockets.map(message)), sockets.map((_, n) => `hello ${n}`));
});
