/** Tasks, by a MessageChannel, because the timers of a hidden page are slowed down. */

const { port1, port2 } = new MessageChannel();
let coming: (() => void)[] = [];
let going: (() => void)[] = []; // backwards

port1.onmessage = () => {
  if (!going.length) [going, coming] = [coming.reverse(), going];
  going.pop()!();
};

/**
 * Run `task` by itself after all that runs now, in the order of the calls. Between two tasks
 * promises settle, as between two events of the engine's own.
 */
export function queueTask(task: () => void): void {
  coming.push(task);
  port2.postMessage(0);
}
