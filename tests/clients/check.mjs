// What the JavaScript programs here compare with, and what they say at the end.

import { isDeepStrictEqual, inspect } from 'node:util';

export const urls = process.argv.slice(2);
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

// Waits until something is so, for at most a minute.
export async function until(what, isSo) {
  const end = Date.now() + 60_000;
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export function done(client) {
  console.log(`${client.padEnd(26)} ${count} answers as they should be`);
  process.exit(0);
}
