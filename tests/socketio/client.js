// What a page does with Socket.IO, by its real client. Prints what has happened as one JSON object.
"use strict";

const { io } = require("socket.io-client");

const url = process.argv[2];
const opened = [];

function open(options) {
  const socket = io(url, { forceNew: true, reconnection: false, ...options });
  opened.push(socket);
  return socket;
}

function once(emitter, name) {
  return new Promise((resolve, reject) => {
    emitter.once(name, resolve);
    if (name !== "disconnect") emitter.once("connect_error", reject);
  });
}

async function main() {
  const result = {};

  // Begins by polling and moves to a WebSocket.
  const ann = open();
  const moved = new Promise((resolve) => {
    ann.io.on("open", () => {
      result.first = ann.io.engine.transport.name;
      ann.io.engine.once("upgrade", (transport) => resolve(transport.name));
    });
  });
  await once(ann, "connect");
  result.upgraded = await moved;

  // Text, binary, and both in one, with acknowledgements.
  result.text = await ann.emitWithAck("echo", "grüß");
  const bytes = Buffer.from([0, 1, 254, 255]);
  result.binary = bytes.equals(await ann.emitWithAck("echo", bytes));
  const large = Buffer.alloc(300000, 7);
  const nested = await ann.emitWithAck("echo", { name: "x", parts: [large, 5, bytes] });
  result.nested = nested.name === "x" && nested.parts[0].equals(large) && nested.parts[1] === 5;

  // Each transport alone.
  const bob = open({ transports: ["polling"] });
  const eve = open({ transports: ["websocket"] });
  await Promise.all([once(bob, "connect"), once(eve, "connect")]);
  result.alone = [bob, eve].map((socket) => socket.io.engine.transport.name);
  result.polled = bytes.equals(await bob.emitWithAck("echo", bytes));

  // A room of two, with a third outside who hears only what is for all.
  const heard = { ann: [], bob: [], eve: [] };
  for (const [name, socket] of Object.entries({ ann, bob, eve })) {
    socket.on("said", (words) => heard[name].push(words));
  }
  await ann.emitWithAck("enter", "attic");
  await bob.emitWithAck("enter", "attic");
  await ann.emitWithAck("say", "attic", "for two");
  await bob.emitWithAck("leave", "attic");
  await ann.emitWithAck("say", "attic", "for one");
  const last = Promise.all([ann, bob, eve].map((socket) => once(socket, "end")));
  ann.emit("end all");
  await last;
  result.heard = heard;

  // The server hangs up.
  const gone = once(eve, "disconnect");
  eve.emit("hang up");
  result.disconnect = await gone;

  // A session that does not exist is refused.
  const response = await fetch(`${url}/socket.io/?EIO=4&transport=polling&sid=none`);
  result.refused = response.status;
  return result;
}

// Whoever waits for this should rather read what has come so far.
setTimeout(() => {
  console.error("waited in vain");
  process.exit(1);
}, 30000).unref();

main()
  .then((result) => console.log(JSON.stringify(result)))
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => opened.forEach((socket) => socket.close()));
