// What the JavaScript programs here compare with, and what they say at the end.

import { isDeepStrictEqual, inspect } from 'node:util';

export const urls = process.argv.slice(2);
const laterOn = [];
let count = 0;

export function same(what, got, wanted) {
  count += 1;
  if (!isDeepStrictEqual(got, wanted)) {
    console.error(`${what}: expected ${inspect(wanted)}, got ${inspect(got)}`);
    process.exit(1);
  }
}

export const holds = (what, isSo) => same(what, Boolean(isSo), true);

// That it is refused with an error whose text begins so.
export async function refused(what, text, attempt) {
  let got;
  try {
    got = await attempt();
  } catch (error) {
    return holds(`${what}: ${error.message}`, error.message.startsWith(text));
  }
  same(what, got, `an error: ${text}`);
}

// What the door may not do yet: then it has to say so; else it has to do it.
export async function later(command, attempt) {
  try {
    await attempt();
  } catch (error) {
    const texts = [error, ...(error.errors ?? []), ...(error.previousErrors ?? [])].map((it) => it.message).join('; ');
    if (!/unknown command|no permissions/.test(texts)) throw error;
    if (!laterOn.includes(command)) laterOn.push(command);
  }
}

// Waits until something is so, for at most a minute.
export async function until(what, isSo) {
  const end = Date.now() + 60_000;
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export function done(client) {
  const notYet = laterOn.length ? `; not yet: ${laterOn.join(', ')}` : '';
  console.log(`${client.padEnd(26)} ${count} answers as they should be${notYet}`);
  process.exit(0);
}
