/** Tasks, by a MessageChannel, because the timers of a hidden page are slowed down. */

const AT_ONCE = 64; // tasks that one message of the channel runs
const LONGEST = 4; // ms, about: what else the page has to do comes next

const { port1, port2 } = new MessageChannel();
let coming: (() => void)[] = [];
let going: (() => void)[] = []; // backwards
let isPosted = false;
let until = 0;

/**
 * Run `task` by itself after all that runs now, in the order of the calls. Between two tasks
 * promises settle, as between two events of the engine's own.
 */
export function queueTask(task: () => void): void {
  coming.push(task);
  if (!isPosted) post();
}

/**
 * Run `action` in a task of the engine's own, the network's: if nothing waits, the first task that
 * it queues runs at once behind it.
 */
export function inTask(action: () => void): void {
  const isFirst = !isPosted;
  action();
  if (isFirst) coming.shift()?.();
}

function post(): void {
  isPosted = true;
  port2.postMessage(0);
}

// The engine lets promises settle behind each listener of its own events: a task for each listener
// costs a fraction of a message for each.
for (let number = 1; number <= AT_ONCE; number++) {
  port1.addEventListener("message", (event) => {
    if (!going.length) [going, coming] = [coming.reverse(), going];
    const task = going.pop();
    if (number === 1) until = Date.now() + LONGEST;
    isPosted = !!task;
    const isLast = number === AT_ONCE || Date.now() > until;
    if (isLast || !task) event.stopImmediatePropagation();
    if (isLast && task) post();
    task?.();
  });
}
port1.start();
